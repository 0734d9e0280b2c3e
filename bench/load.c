/* The load side of the benchmark: many WebSocket connections in one thread, cheap enough not to be the bottleneck.
 *
 *   load PORT PATH SUBSCRIBERS GREETINGS PUBLISH WINDOW MESSAGES
 *
 * Opens SUBSCRIBERS connections to 127.0.0.1:PORT and PATH, sends each its line of the file GREETINGS (the last line
 * serves the rest; commands within a line are separated by a tab), and waits until each has been answered once per
 * command. Then prints "ready" and waits for a line on standard input; "quit" ends, anything else starts a round: one
 * more connection sends the message in the file PUBLISH again and again, never more than WINDOW of them on their way,
 * until MESSAGES have reached every subscriber. A message has arrived when its mark, the byte '~', has. Prints
 * "<seconds>" and waits for the next line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 18, EVENTS = 512, DEADLINE_S = 120, CONNECTIONS = 20000 };

static char buffer[BUFFER];

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) fail("send");
        data += sent;
        size -= (size_t)sent;
    }
}

/* A masked text frame whose key is zero: the payload stays as it is. Returns its size. */
static size_t frame(char *out, const char *payload, size_t size) {
    size_t at = 0;
    out[at++] = (char)0x81;
    if (size < 126) {
        out[at++] = (char)(0x80 | size);
    } else {
        out[at++] = (char)(0x80 | 126);
        out[at++] = (char)(size >> 8);
        out[at++] = (char)size;
    }
    memset(out + at, 0, 4);
    memcpy(out + at + 4, payload, size);
    return at + 4 + size;
}

static int open_socket(int port, const char *path) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    char request[512];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n",
                        path);
    send_all(fd, request, (size_t)size);
    size_t got = 0;
    while (!memmem(buffer, got, "\r\n\r\n", 4)) {
        ssize_t n = recv(fd, buffer + got, BUFFER - got, 0);
        if (n <= 0) fail("handshake");
        got += (size_t)n;
    }
    if (!memmem(buffer, got, " 101 ", 5)) {
        fprintf(stderr, "refused: %.*s\n", (int)got, buffer);
        exit(1);
    }
    return fd;
}

/* Sends each tab-separated command and waits for something to come back after each. */
static void greet(int fd, const char *line, size_t size) {
    static char out[1 << 16];
    while (size) {
        const char *tab = memchr(line, '\t', size);
        size_t part = tab ? (size_t)(tab - line) : size;
        send_all(fd, out, frame(out, line, part));
        if (recv(fd, buffer, BUFFER, 0) <= 0) fail("greeting");
        line += part + (tab ? 1 : 0);
        size -= part + (tab ? 1 : 0);
    }
}

static char *read_file(const char *name, size_t *size) {
    FILE *file = fopen(name, "r");
    if (!file) fail(name);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(*size + 1);
    if (fread(text, 1, *size, file) != *size) fail(name);
    text[*size] = 0;
    fclose(file);
    return text;
}

/* Where a connection is in the stream of frames: header bytes seen so far, payload bytes still to come. */
struct stream {
    unsigned char header[4];
    int seen;
    size_t left;
};

static struct stream streams[CONNECTIONS];

/* Counts marks in payloads; lengths in headers may look like one. Server frames are below 64 KiB here. */
static long count_marks(struct stream *stream, const char *data, size_t size) {
    long marks = 0;
    while (size) {
        if (stream->left) {
            size_t part = stream->left < size ? stream->left : size;
            for (const char *at = data, *end = data + part; (at = memchr(at, '~', (size_t)(end - at))); at++) marks++;
            stream->left -= part;
            data += part;
            size -= part;
            continue;
        }
        stream->header[stream->seen++] = (unsigned char)*data++;
        size--;
        if (stream->seen == 2 && stream->header[1] < 126) {
            stream->left = stream->header[1];
            stream->seen = 0;
        } else if (stream->seen == 4) {
            if (stream->header[1] == 127) {
                fputs("a frame of 64 KiB or more\n", stderr);
                exit(1);
            }
            stream->left = (size_t)(stream->header[2] << 8 | stream->header[3]);
            stream->seen = 0;
        }
    }
    return marks;
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: load PORT PATH SUBSCRIBERS GREETINGS PUBLISH WINDOW MESSAGES\n");
        return 2;
    }
    int port = atoi(argv[1]), subscribers = atoi(argv[3]);
    long window = atol(argv[6]), messages = atol(argv[7]);
    size_t greetings_size, publish_size;
    char *greetings = read_file(argv[4], &greetings_size);
    char *publish = read_file(argv[5], &publish_size);

    int poll = epoll_create1(0);
    const char *line = greetings, *end = greetings + greetings_size;
    for (int i = 0; i <= subscribers; i++) {
        int fd = open_socket(port, argv[2]);
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        greet(fd, line, newline ? (size_t)(newline - line) : (size_t)(end - line));
        if (newline && newline + 1 < end) line = newline + 1;
        if (i == subscribers) {
            /* The publisher is the last connection. Its own copies are read and not counted. */
            static char out[1 << 16];
            size_t size = frame(out, publish, publish_size);
            puts("ready");
            fflush(stdout);
            char command[64];
            while (fgets(command, sizeof command, stdin) && strncmp(command, "quit", 4)) {
                double started = now();
                long sent = 0, arrived = 0;
                while (arrived < messages * subscribers) {
                    while (sent < messages && sent - arrived / subscribers < window) {
                        send_all(fd, out, size);
                        sent++;
                    }
                    /* Looks ten thousand times a second. A reader that sleeps must be woken by each send, and one
                       that spins fights the sender for locks, the more the slower the sender is; both would be
                       charged to the server. Readers on other machines do neither. */
                    struct epoll_event events[EVENTS];
                    int ready = epoll_wait(poll, events, EVENTS, 0);
                    if (!ready) usleep(100);
                    for (int e = 0; e < ready; e++) {
                        ssize_t n = recv(events[e].data.fd, buffer, BUFFER, MSG_DONTWAIT);
                        if (n <= 0) fail("a subscriber was disconnected");
                        arrived += count_marks(&streams[events[e].data.fd], buffer, (size_t)n);
                    }
                    while (recv(fd, buffer, BUFFER, MSG_DONTWAIT) > 0) {}
                    if (now() - started > DEADLINE_S) {
                        fprintf(stderr, "only %ld of %ld arrived\n", arrived, messages * subscribers);
                        return 1;
                    }
                }
                printf("%.6f\n", now() - started);
                fflush(stdout);
            }
            return 0;
        }
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
    }
}
