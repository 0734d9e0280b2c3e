/* WebSocket frames: those of a server taken apart, however they were cut, and those of a client put together. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { CONTROL_BYTES_MAX = 125, FRAME_HEADER_BYTES_MAX = 14 };

/* Where a connection is in its stream of frames. Zeroed: at the beginning. */
struct frames {
    unsigned char header[10];
    unsigned char header_size; /* how much of it was seen */
    bool in_payload;
    unsigned char control_size;
    uint64_t left; /* payload still to come */
    char control[CONTROL_BYTES_MAX];
};

/* Data comes in pieces as they arrive, which may be empty; pings and closes come whole. */
struct piece {
    enum { NO_PIECE, DATA_PIECE, PING_PIECE, CLOSE_PIECE, BROKEN_PIECE } kind;
    const char *bytes; /* in the data that was read, or in `frames`: until the next one is asked for */
    size_t size;
    bool ends_message;
};

/* The next piece of *data, which moves on. NO_PIECE: more is needed; BROKEN_PIECE: this is no server's WebSocket. */
struct piece next_piece(struct frames *frames, const char **data, const char *end);

/* Writes a frame: `out` has room for FRAME_HEADER_BYTES_MAX more than the payload. Its masking key is zero, which
   leaves the payload as it is. Returns the frame's size. */
size_t build_frame(char *out, int opcode, const void *payload, size_t size);
