/* Links: non-blocking TCP connections to the server, all in one epoll; what cannot be sent at once waits. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LINKS_MAX = 20000,
    LINK_WAITING_BYTES_MAX = 64 << 20, /* a server that reads so little is not there any more */
    LOOK_MANY = 512,
    LOOK_FEW = 64, /* less than 0.1 ms of reading: messages fall due in between */
    LOOK_PAUSE_US = 100
};

/* The first member of what it belongs to, so that a receiver can cast it back. */
struct link {
    int number, fd;
    char *waiting; /* what the kernel did not take, from `sent` to `size` */
    size_t sent, size, capacity;
};

/* Called with what came in and when; size 0: the server has ended it. A broken link fails the program. */
typedef void receiver(struct link *link, const char *data, size_t size, uint64_t now_ns);

/* Once, before everything else: also allows itself as many open files as it may have, and timers without slack. */
void links_start(receiver *receive);

/* For whoever wants to wait for more than links: it is readable when `look` has something to do. */
int links_epoll(void);

/* Connects to a port of 127.0.0.1. What is sent before the connection is established waits for it. */
void link_open(struct link *link, int port);

void link_close(struct link *link);

void link_send(struct link *link, const void *data, size_t size);

/* Waits up to wait_ns (0: not at all) until links are ready, and serves up to `links_max`. Returns how many. */
int look(int links_max, uint64_t wait_ns);

/* Looks ten thousand times a second. A reader that sleeps must be woken by each send, and one that spins fights the
   sender for locks, the more the slower the sender is; both would be charged to the server. Readers on other machines
   do neither. */
void look_steadily(void);
