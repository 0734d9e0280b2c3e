/* One WebSocket connection of the plan: its handshake, its setup messages, what it publishes and what it receives. */
#pragma once
#include "link.h"
#include "response.h"
#include "scan.h"
#include "counters.h"
#include "websocket.h"

/* A frame ready to be sent. */
struct frame {
    char *bytes;
    size_t size;
};

struct connection {
    struct link link; /* the first member: see link.h */
    struct group *group;
    struct frame *setup_messages;
    int setup_count;
    struct frame publication; /* `bytes` NULL: the connection publishes nothing */
    char *time;               /* the place of the time in the publication; NULL: none */

    enum { CLOSED, HANDSHAKING, SETTING_UP, CATCHING_UP, OPEN } state;
    uint64_t opened_ns;
    int answers_awaited; /* messages of the server that must come before the next setup message */
    int setup_sent;
    long marks_awaited; /* that must come before the connection is open */
    long unacked;       /* published and not acknowledged */
    long stale;         /* those of `unacked` that an earlier command has published */

    struct response response;
    struct frames frames;
    struct mark mark;
    size_t ack_matched;
};

/* Call this once. `initial_messages`: the number of messages that the server sends before the first setup message.
   `ack`: the bytes of an acknowledgement. */
void connections_start(int port, const char *path, int initial_messages, struct pattern ack);

/* Starts to open the connection. It is OPEN, and counted, after the reply to the last setup message and `marks`
   marks. */
void connection_open(struct connection *connection, long marks);

/* Publishes with this time. Fails if the connection is not open. */
void connection_publish(struct connection *connection, uint64_t time_ns);

/* What the connection is waiting for, as text. */
const char *connection_awaits(const struct connection *connection);
