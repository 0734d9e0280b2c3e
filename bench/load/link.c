#include "link.h"
#include "clock.h"
#include "commands.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18 };

static int epoll;
static receiver *receive;

void links_start(receiver *receiver) {
    receive = receiver;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) fail("epoll: %s", strerror(errno));
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1UL); /* the default, 50 us, would count as latency of the server */
}

int links_epoll(void) {
    return epoll;
}

static void watch(struct link *link, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = link};
    if (epoll_ctl(epoll, operation, link->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

void link_open(struct link *link, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    link->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (link->fd < 0) fail("connection %d: socket: %s", link->number, strerror(errno));
    if (connect(link->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("connection %d: connect: %s", link->number, strerror(errno));
    setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(link, EPOLL_CTL_ADD, EPOLLIN);
}

void link_close(struct link *link) {
    close(link->fd);
    link->sent = link->size = 0;
}

/* The number of bytes that the kernel accepted: 0 if its buffer is full or the connection is not established. */
static size_t try_send(struct link *link, const char *data, size_t size) {
    ssize_t sent = send(link->fd, data, size, MSG_NOSIGNAL);
    if (sent >= 0) return (size_t)sent;
    if (errno != EAGAIN && errno != EINTR) fail("connection %d: send: %s", link->number, strerror(errno));
    return 0;
}

static void enqueue(struct link *link, const char *data, size_t size) {
    if (link->size + size > LINK_WAITING_BYTES_MAX) fail("connection %d: the server does not read", link->number);
    if (link->size + size > link->capacity) {
        link->capacity = 2 * (link->size + size);
        link->waiting = realloc(link->waiting, link->capacity);
        if (!link->waiting) fail("no memory for %zu bytes", link->capacity);
    }
    memcpy(link->waiting + link->size, data, size);
    link->size += size;
}

void link_send(struct link *link, const void *data, size_t size) {
    bool idle = !link->size; /* otherwise the data would overtake queued data */
    size_t sent = idle ? try_send(link, data, size) : 0;
    if (sent == size) return;
    enqueue(link, (const char *)data + sent, size - sent);
    if (idle) watch(link, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

static void send_waiting(struct link *link) {
    link->sent += try_send(link, link->waiting + link->sent, link->size - link->sent);
    if (link->sent < link->size) return;
    link->sent = link->size = 0;
    watch(link, EPOLL_CTL_MOD, EPOLLIN);
}

static void receive_once(struct link *link) {
    static char buffer[BUFFER_BYTES];
    ssize_t size = recv(link->fd, buffer, sizeof buffer, 0);
    if (size >= 0) return receive(link, buffer, (size_t)size, now_ns());
    if (errno != EAGAIN && errno != EINTR) fail("connection %d: %s", link->number, strerror(errno));
}

int poll_links(int links_max, uint64_t wait_ns) {
    struct epoll_event events[POLL_MANY];
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / SECOND_NS), .tv_nsec = (long)(wait_ns % SECOND_NS)};
    int ready = epoll_pwait2(epoll, events, links_max, &wait, NULL);
    if (ready < 0 && errno != EINTR) fail("epoll: %s", strerror(errno));
    for (int i = 0; i < ready; i++) {
        struct link *link = events[i].data.ptr;
        if (events[i].events & EPOLLOUT && link->size) send_waiting(link);
        if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) receive_once(link);
    }
    return ready;
}

void poll_links_steadily(void) {
    if (poll_links(POLL_MANY, 0) <= 0) usleep(POLL_PAUSE_US);
}
