/* WebSocket frames: reads those of a server from pieces of any size, and builds those of a client. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { CONTROL_BYTES_MAX = 125, FRAME_HEADER_BYTES_MAX = 14 };

/* The position of a connection in its stream of frames. A zeroed struct is the beginning. */
struct frames {
    unsigned char header[10];
    unsigned char header_size; /* bytes of it that were read */
    bool in_payload;
    unsigned char control_size;
    uint64_t left; /* missing bytes of the payload */
    char control[CONTROL_BYTES_MAX];
};

/* Data comes in pieces as received, which may be empty. Pings and close frames come complete. */
struct piece {
    enum { NO_PIECE, DATA_PIECE, PING_PIECE, CLOSE_PIECE, BROKEN_PIECE } kind;
    const char *bytes; /* in the data or in `frames`; valid until the next call */
    size_t size;
    bool ends_message;
};

/* The next piece; *data moves behind it. NO_PIECE: more data is needed. BROKEN_PIECE: not a valid frame of a server. */
struct piece next_piece(struct frames *frames, const char **data, const char *end);

/* Writes a frame. `out` must have space for the payload and FRAME_HEADER_BYTES_MAX bytes. The masking key is zero, so
   the payload stays unchanged. Returns the size of the frame. */
size_t build_frame(char *out, int opcode, const void *payload, size_t size);
