/* The physical limit: a server that does nothing but send() each message to each connection, one call each.
 *
 *   loop FRAME_BYTES
 *
 * Listens on a free port of 127.0.0.1 and prints it. Every connection gets a fixed handshake answer and one byte-sized
 * answer per frame it sends while greeting. A frame whose payload holds '~' is a message: a frame of FRAME_BYTES with
 * one '~' in it goes to every connection but the one it came from.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS = 20000, EVENTS = 512, BUFFER = 1 << 16 };

static int connections[CONNECTIONS];
static int count;
static char buffer[BUFFER];
static const char ANSWER[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: OfS0wDaT5NoxF2gqm7Zj2YtetzM=\r\n\r\n";

int main(int argc, char **argv) {
    int size = argc > 1 ? atoi(argv[1]) : 132;
    char *message = malloc((size_t)size);
    memset(message, 'x', (size_t)size);
    message[0] = (char)0x81;
    message[1] = 126;
    message[2] = (char)((size - 4) >> 8);
    message[3] = (char)(size - 4);
    message[size - 1] = '~';

    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    int poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int e = 0; e < ready; e++) {
            int fd = events[e].data.fd;
            if (fd == listener) {
                fd = accept(listener, NULL, NULL);
                if (fd < 0 || count == CONNECTIONS) return 1;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                connections[count++] = fd;
                event.data.fd = fd;
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            ssize_t n = recv(fd, buffer, BUFFER, MSG_DONTWAIT);
            if (n <= 0) {
                close(fd);
                for (int c = 0; c < count; c++)
                    if (connections[c] == fd) {
                        connections[c] = connections[--count];
                        break;
                    }
                continue;
            }
            if (n > 4 && !memcmp(buffer, "GET ", 4)) {
                send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL);
                continue;
            }
            long marks = 0;
            for (char *at = buffer; (at = memchr(at, '~', (size_t)(buffer + n - at))); at++) marks++;
            if (!marks) send(fd, "\x81\x00", 2, MSG_NOSIGNAL);
            for (; marks; marks--)
                for (int c = 0; c < count; c++)
                    if (connections[c] != fd) send(connections[c], message, (size_t)size, MSG_NOSIGNAL);
        }
    }
}
