/* Links: non-blocking TCP connections to the server, all in one epoll. Data that cannot be sent at once is queued. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LINKS_MAX = 20000,
    LINK_WAITING_BYTES_MAX = 64 << 20, /* with more, the server counts as dead */
    POLL_MANY = 512,
    POLL_FEW = 64, /* less than 0.1 ms of reading, because messages become due meanwhile */
    POLL_PAUSE_US = 100
};

/* The first member of a larger struct, so that a receiver can cast the pointer. */
struct link {
    int number, fd;
    char *waiting; /* queued data that the kernel did not accept: from `sent` to `size` */
    size_t sent, size, capacity;
};

/* Called with received data and the time. Size 0: the server has closed the connection. A connection error ends the
   program. */
typedef void receiver(struct link *link, const char *data, size_t size, uint64_t now_ns);

/* Call this once, first. It also raises the limit on open files and sets the timer slack of the process to zero. */
void links_start(receiver *receive);

/* For a poll() together with other files: readable when `poll_links` has something to do. */
int links_epoll(void);

/* Connects to a port of 127.0.0.1. Data that is sent before the connection is established is queued. */
void link_open(struct link *link, int port);

void link_close(struct link *link);

void link_send(struct link *link, const void *data, size_t size);

/* Waits up to wait_ns (0: not at all) until links are ready, and serves up to `links_max`. Returns their number. */
int poll_links(int links_max, uint64_t wait_ns);

/* Polls ten thousand times a second. A reader that sleeps must be woken by each send, and a reader that polls all the
   time competes with the sender for locks, the more the slower the sender is. Both would cost the server CPU time.
   Readers on other machines do neither. */
void poll_links_steadily(void);
