#include "websocket.h"
#include <string.h>

enum { FINAL = 0x80, RESERVED = 0x70, OPCODE = 0x0f, CONTROL = 0x08, MASKED = 0x80, LENGTH = 0x7f };
enum { LENGTH_IN_2_BYTES = 126, LENGTH_IN_8_BYTES = 127 };

static unsigned header_size(const struct frames *frames) {
    if (frames->header_size < 2) return 2;
    unsigned length = frames->header[1] & LENGTH;
    return length == LENGTH_IN_8_BYTES ? 10 : length == LENGTH_IN_2_BYTES ? 4 : 2;
}

/* Reads a header or a part of it. True: the header is complete. */
static bool gather_header(struct frames *frames, const char **data, const char *end) {
    while (frames->header_size < header_size(frames)) {
        if (*data == end) return false;
        frames->header[frames->header_size++] = (unsigned char)*(*data)++;
    }
    frames->left = frames->header[1] & LENGTH;
    if (frames->header_size > 2) {
        frames->left = 0;
        for (int i = 2; i < frames->header_size; i++) frames->left = frames->left << 8 | frames->header[i];
    }
    frames->header_size = 0;
    return true;
}

static bool is_broken(const struct frames *frames) {
    bool control = frames->header[0] & CONTROL;
    return frames->header[0] & RESERVED || frames->header[1] & MASKED || (control && frames->left > CONTROL_BYTES_MAX);
}

/* Reads the payload of a control frame or a part of it. True: the payload is complete. */
static bool gather_control(struct frames *frames, struct piece *piece) {
    memcpy(frames->control + frames->control_size, piece->bytes, piece->size);
    frames->control_size += (unsigned char)piece->size;
    piece->bytes = frames->control;
    piece->size = frames->control_size;
    return !frames->in_payload;
}

struct piece next_piece(struct frames *frames, const char **data, const char *end) {
    for (;;) {
        if (!frames->in_payload) {
            if (!gather_header(frames, data, end)) return (struct piece){.kind = NO_PIECE};
            if (is_broken(frames)) return (struct piece){.kind = BROKEN_PIECE};
            frames->in_payload = true;
        } else if (*data == end) {
            return (struct piece){.kind = NO_PIECE};
        }
        size_t there = (size_t)(end - *data);
        struct piece piece = {.kind = DATA_PIECE, .bytes = *data, .size = there < frames->left ? there : frames->left};
        *data += piece.size;
        frames->left -= piece.size;
        frames->in_payload = frames->left > 0;
        int opcode = frames->header[0] & OPCODE;
        if (!(opcode & CONTROL)) {
            piece.ends_message = !frames->in_payload && frames->header[0] & FINAL;
            return piece;
        }
        if (!gather_control(frames, &piece)) continue;
        frames->control_size = 0;
        piece.kind = opcode == CLOSE ? CLOSE_PIECE : PING_PIECE;
        if (opcode != PONG) return piece;
    }
}

size_t build_frame(char *out, int opcode, const void *payload, size_t size) {
    int length_bytes = size < LENGTH_IN_2_BYTES ? 0 : size < 1 << 16 ? 2 : 8;
    int length = !length_bytes ? (int)size : length_bytes == 2 ? LENGTH_IN_2_BYTES : LENGTH_IN_8_BYTES;
    size_t at = 0;
    out[at++] = (char)(FINAL | opcode);
    out[at++] = (char)(MASKED | length);
    for (int i = length_bytes - 1; i >= 0; i--) out[at++] = (char)(size >> 8 * i);
    memset(out + at, 0, 4);
    memcpy(out + at + 4, payload, size);
    return at + 4 + size;
}
