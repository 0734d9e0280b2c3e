#include "response.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void read_header(struct response *response) {
    static const char LENGTH[] = "content-length:", ENCODING[] = "transfer-encoding:";
    if (!strncasecmp(response->line, LENGTH, sizeof LENGTH - 1)) {
        response->left = strtoul(response->line + sizeof LENGTH - 1, NULL, 10);
        response->sized = true;
    } else if (!strncasecmp(response->line, ENCODING, sizeof ENCODING - 1)) {
        response->chunked = strcasestr(response->line, "chunked") != NULL;
    }
}

static int state_after_headers(const struct response *response) {
    if (response->status < 200 || response->status == 204 || response->status == 304) return COMPLETE;
    if (response->chunked) return CHUNK_SIZE;
    if (!response->sized) return BROKEN; /* the body would end only with the connection */
    return response->left ? BODY : COMPLETE;
}

static void read_line(struct response *response) {
    bool empty = response->line_size == 0;
    switch (response->state) {
    case STATUS_LINE:
        response->status = strncmp(response->line, "HTTP/1.", 7) ? 0 : atoi(response->line + 8);
        response->state = response->status ? HEADERS : BROKEN;
        break;
    case HEADERS:
        if (empty) response->state = state_after_headers(response);
        else read_header(response);
        break;
    case CHUNK_SIZE:
        response->left = strtoul(response->line, NULL, 16);
        response->state = response->left ? CHUNK : TRAILERS;
        break;
    case CHUNK_END:
        response->state = CHUNK_SIZE;
        break;
    default: /* TRAILERS */
        if (empty) response->state = COMPLETE;
    }
}

/* Reads a line or a part of it. True: the line is complete; its line break is removed. */
static bool gather_line(struct response *response, const char **data, const char *end) {
    const char *newline = memchr(*data, '\n', (size_t)(end - *data));
    size_t size = (size_t)((newline ? newline : end) - *data);
    size_t room = RESPONSE_LINE_BYTES - 1 - response->line_size;
    size_t kept = size < room ? size : room;
    memcpy(response->line + response->line_size, *data, kept);
    response->line_size += kept;
    *data += size + (newline != NULL);
    if (!newline) return false;
    if (response->line_size && response->line[response->line_size - 1] == '\r') response->line_size--;
    response->line[response->line_size] = 0;
    return true;
}

bool response_read(struct response *response, const char **data, const char *end) {
    while (response->state < COMPLETE && *data < end) {
        if (response->state == BODY || response->state == CHUNK) {
            size_t there = (size_t)(end - *data), size = there < response->left ? there : response->left;
            *data += size;
            response->left -= size;
            if (!response->left) response->state = response->state == BODY ? COMPLETE : CHUNK_END;
        } else if (gather_line(response, data, end)) {
            read_line(response);
            response->line_size = 0;
        }
    }
    return response->state >= COMPLETE;
}
