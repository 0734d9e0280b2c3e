/* Reads an HTTP/1.1 response from pieces of any size: with Content-Length, chunked, or without a body. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { RESPONSE_LINE_BYTES = 96 };

/* Zero it before the next response. */
struct response {
    enum { STATUS_LINE, HEADERS, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILERS, COMPLETE, BROKEN } state;
    int status;
    bool chunked, sized;
    size_t left; /* missing bytes of the body or of this chunk */
    char line[RESPONSE_LINE_BYTES]; /* the beginning of the current line; the rest is not needed */
    size_t line_size;
};

/* Reads from *data up to `end` or the end of the response. True: the response is complete or invalid. */
bool response_read(struct response *response, const char **data, const char *end);
