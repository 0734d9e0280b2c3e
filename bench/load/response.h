/* Reads an HTTP/1.1 response, however it was cut: by Content-Length, chunked, or without a body. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { RESPONSE_LINE_BYTES = 96 };

/* Zeroed, it is ready for the next response. */
struct response {
    enum { STATUS_LINE, HEADERS, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILERS, COMPLETE, BROKEN } state;
    int status;
    bool chunked, sized;
    size_t left; /* bytes of the body, or of this chunk, still to come */
    char line[RESPONSE_LINE_BYTES]; /* the beginning of the line that is being read: all that is ever looked at */
    size_t line_size;
};

/* Reads from *data up to `end`, or up to where the response ends. True: it is complete, or broken. */
bool response_read(struct response *response, const char **data, const char *end);
