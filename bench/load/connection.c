#include "connection.h"
#include "clock.h"
#include "commands.h"
#include <stdio.h>
#include <string.h>

enum { REQUEST_BYTES_MAX = 2048, SWITCHING_PROTOCOLS = 101 };

static struct {
    int port, initial_messages;
    char request[REQUEST_BYTES_MAX];
    size_t request_size;
    struct pattern ack;
} common;

static void receive(struct link *link, const char *data, size_t size, uint64_t now_ns);

void connections_start(int port, const char *path, int initial_messages, struct pattern ack) {
    common.port = port;
    common.initial_messages = initial_messages;
    common.ack = ack;
    /* Always the same key: other tests check the response to it. */
    int size = snprintf(common.request, sizeof common.request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n",
                        path, port);
    if (size >= REQUEST_BYTES_MAX) fail("the path is too long");
    common.request_size = (size_t)size;
    links_start(receive);
}

void connection_open(struct connection *connection, long marks) {
    connection->state = HANDSHAKING;
    connection->opened_ns = now_ns();
    connection->answers_awaited = common.initial_messages;
    connection->marks_awaited = marks;
    link_open(&connection->link, common.port);
    link_send(&connection->link, common.request, common.request_size);
}

void connection_publish(struct connection *connection, uint64_t time_ns) {
    if (connection->state != OPEN) fail("connection %d publishes but is not open", connection->link.number);
    if (connection->time) write_time(connection->time, time_ns);
    link_send(&connection->link, connection->publication.bytes, connection->publication.size);
    connection->unacked++;
}

/* Continues opening the connection as far as the received messages allow. */
static void advance(struct connection *connection, uint64_t now_ns) {
    if (connection->state == SETTING_UP && connection->answers_awaited <= 0) {
        if (connection->setup_sent < connection->setup_count) {
            const struct frame *setup_message = &connection->setup_messages[connection->setup_sent++];
            connection->answers_awaited = 1;
            link_send(&connection->link, setup_message->bytes, setup_message->size);
            return;
        }
        connection->state = CATCHING_UP;
    }
    if (connection->state == CATCHING_UP && connection->marks_awaited <= 0) {
        connection->state = OPEN;
        counters_opened(now_ns - connection->opened_ns);
    }
}

static void count_mark(struct connection *connection, uint64_t sent_ns, uint64_t now_ns) {
    if (connection->state == OPEN) counters_mark(connection->group, sent_ns, now_ns);
    else connection->marks_awaited--;
}

static void count_ack(struct connection *connection) {
    connection->unacked--;
    if (connection->stale > 0) connection->stale--;
    else counters_ack(connection->group);
}

static void read_data(struct connection *connection, const struct piece *piece, uint64_t now_ns) {
    const char *data = piece->bytes, *end = data + piece->size;
    uint64_t sent_ns;
    while (next_mark(&connection->mark, &data, end, &sent_ns)) count_mark(connection, sent_ns, now_ns);
    if (connection->publication.bytes && common.ack.size) {
        data = piece->bytes;
        while (next_match(&common.ack, &connection->ack_matched, &data, end)) count_ack(connection);
    }
    if (piece->ends_message) {
        connection->mark.begun = false;
        connection->ack_matched = 0;
        connection->answers_awaited--;
    }
    if (connection->state != OPEN) advance(connection, now_ns);
}

static void send_pong(struct connection *connection, const struct piece *ping) {
    char pong[FRAME_HEADER_BYTES_MAX + CONTROL_BYTES_MAX];
    link_send(&connection->link, pong, build_frame(pong, PONG, ping->bytes, ping->size));
}

static _Noreturn void fail_closed(const struct connection *connection, const struct piece *close) {
    int number = connection->link.number;
    if (close->size < 2) fail("connection %d: the server closed it without a code", number);
    const unsigned char *code = (const unsigned char *)close->bytes;
    fail("connection %d: the server closed it with code %d and reason \"%.*s\"", number, code[0] << 8 | code[1],
         (int)close->size - 2, close->bytes + 2);
}

/* True: the handshake is complete, and frames follow. */
static bool read_handshake(struct connection *connection, const char **data, const char *end, uint64_t now_ns) {
    struct response *response = &connection->response;
    if (!response_read(response, data, end) && (response->state <= HEADERS || response->status == SWITCHING_PROTOCOLS))
        return false;
    if (response->status != SWITCHING_PROTOCOLS)
        fail("connection %d: the server refused it with HTTP status %d", connection->link.number, response->status);
    connection->state = SETTING_UP;
    advance(connection, now_ns);
    return true;
}

static void receive(struct link *link, const char *data, size_t size, uint64_t now_ns) {
    struct connection *connection = (struct connection *)link;
    const char *end = data + size;
    if (!size) fail("connection %d: the server ended it without a close frame", link->number);
    if (connection->state == HANDSHAKING && !read_handshake(connection, &data, end, now_ns)) return;
    for (;;) {
        struct piece piece = next_piece(&connection->frames, &data, end);
        switch (piece.kind) {
        case NO_PIECE: return;
        case DATA_PIECE: read_data(connection, &piece, now_ns); break;
        case PING_PIECE: send_pong(connection, &piece); break;
        case CLOSE_PIECE: fail_closed(connection, &piece);
        case BROKEN_PIECE: fail("connection %d: the server sent an invalid frame", link->number);
        }
    }
}

const char *connection_awaits(const struct connection *connection) {
    static char text[80];
    switch (connection->state) {
    case CLOSED: return "its turn";
    case HANDSHAKING: return "the response to its handshake";
    case SETTING_UP:
        snprintf(text, sizeof text, "%d message(s) after setup message %d of %d", connection->answers_awaited,
                 connection->setup_sent, connection->setup_count);
        return text;
    case CATCHING_UP: snprintf(text, sizeof text, "%ld mark(s)", connection->marks_awaited); return text;
    default: return "nothing";
    }
}
