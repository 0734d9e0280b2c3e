/* One WebSocket connection of the plan: its handshake, its greetings, and what it publishes and hears. */
#pragma once
#include "link.h"
#include "response.h"
#include "scan.h"
#include "tally.h"
#include "websocket.h"

/* A frame ready to be sent. */
struct frame {
    char *bytes;
    size_t size;
};

struct connection {
    struct link link; /* first: see there */
    struct group *group;
    struct frame *greetings;
    int greeting_count;
    struct frame publication; /* `bytes` NULL: it publishes nothing */
    char *time;               /* where the time goes in the publication; NULL: nowhere */

    enum { CLOSED, HANDSHAKING, GREETING, CATCHING_UP, OPEN } state;
    uint64_t opened_ns;
    int answers_awaited; /* messages from the server before the next greeting */
    int greeted;
    long marks_awaited; /* before it counts as open */
    long unacked;       /* published, and not acknowledged yet */
    long stale;         /* of these, published before the present command */

    struct response response;
    struct frames frames;
    struct mark mark;
    size_t ack_matched;
};

/* Once. `unprompted`: messages that the server sends before it is greeted; `ack`: how an acknowledgement looks. */
void connections_start(int port, const char *path, int unprompted, struct pattern ack);

/* Begins to open it; it is OPEN, and tallied so, once it was greeted and as many marks have arrived. */
void connection_open(struct connection *connection, long marks);

/* Publishes with this time. Fails if it is not open. */
void connection_publish(struct connection *connection, uint64_t time_ns);

/* What it is waiting for, in words. */
const char *connection_awaits(const struct connection *connection);
