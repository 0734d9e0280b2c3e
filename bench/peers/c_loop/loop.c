/* The physical limit: a server that only calls send() once per message and connection.
 *
 *   loop PORT
 *
 * Listens on 127.0.0.1. Every connection receives a fixed handshake response, valid for the key
 * AAECAwQFBgcICQoLDA0ODw==, and an empty text frame in reply to each setup message. A frame with '~' in its payload is
 * a publication: a text frame with this payload is sent to every connection except its publisher.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FILES = 1 << 16, EVENTS = 512, PAYLOAD = 1 << 16, BUFFER = 1 << 18, HEAD = 4 };

/* The received part of an incomplete frame, by file descriptor. */
static struct {
    unsigned char *bytes;
    size_t size;
} rests[FILES];

static int connections[FILES];
static int count;
static unsigned char buffer[BUFFER];
static const char ANSWER[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: Bz3qJYTGdOe8gUSpLosEdiLKDrk=\r\n\r\n";

static void let_in(int poll, int listener) {
    int fd = accept(listener, NULL, NULL), one = 1;
    if (fd < 0 || fd >= FILES) exit(1);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    connections[count++] = fd;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
}

static void let_go(int fd) {
    close(fd);
    free(rests[fd].bytes);
    rests[fd].bytes = NULL;
    rests[fd].size = 0;
    for (int c = 0; c < count; c++) {
        if (connections[c] == fd) {
            connections[c] = connections[--count];
            return;
        }
    }
}

static void broadcast(int from, const unsigned char *payload, size_t size) {
    static unsigned char frame[HEAD + PAYLOAD] = {0x81};
    size_t head = size < 126 ? 2 : HEAD;
    frame[1] = size < 126 ? (unsigned char)size : 126;
    if (head == HEAD) {
        frame[2] = (unsigned char)(size >> 8);
        frame[3] = (unsigned char)size;
    }
    memcpy(frame + head, payload, size);
    for (int c = 0; c < count; c++)
        if (connections[c] != from) send(connections[c], frame, head + size, MSG_NOSIGNAL);
}

/* Handles the frame at the beginning of the bytes. Returns its size, 0 if it is incomplete, or -1 for a close frame. */
static ssize_t serve(int fd, unsigned char *bytes, size_t size) {
    if (size < 6) return 0;
    int opcode = bytes[0] & 15;
    size_t length = bytes[1] & 127, at = 2;
    if (opcode == 8 || length == 127) return -1;
    if (length == 126) {
        length = (size_t)(bytes[2] << 8 | bytes[3]);
        at = 4;
    }
    const unsigned char *key = bytes + at;
    unsigned char *payload = bytes + at + 4;
    if (size < at + 4 + length) return 0;
    for (size_t i = 0; i < length; i++) payload[i] ^= key[i & 3];
    if (opcode == 1 || opcode == 2) {
        if (memchr(payload, '~', length)) broadcast(fd, payload, length);
        else send(fd, "\x81\x00", 2, MSG_NOSIGNAL);
    }
    return (ssize_t)(at + 4 + length);
}

static void receive(int fd) {
    size_t size = rests[fd].size;
    if (size) memcpy(buffer, rests[fd].bytes, size);
    ssize_t n = recv(fd, buffer + size, BUFFER - size, MSG_DONTWAIT);
    if (n <= 0) {
        let_go(fd);
        return;
    }
    size += (size_t)n;
    if (size > 4 && !memcmp(buffer, "GET ", 4)) {
        send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL);
        return;
    }
    size_t at = 0;
    ssize_t served;
    while ((served = serve(fd, buffer + at, size - at)) > 0) at += (size_t)served;
    if (served < 0) {
        let_go(fd);
        return;
    }
    rests[fd].size = size - at;
    rests[fd].bytes = realloc(rests[fd].bytes, size - at + 1);
    memcpy(rests[fd].bytes, buffer + at, size - at);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc == 2 ? atoi(argv[1]) : 0)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("listen");
        return 1;
    }
    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int e = 0; e < ready; e++) {
            if (events[e].data.fd == listener) let_in(poll, listener);
            else receive(events[e].data.fd);
        }
    }
}
