#include "plan.h"
#include "commands.h"
#include <stdlib.h>
#include <string.h>

long decode_hex(char *text) {
    size_t size = strlen(text) / 2;
    if (strlen(text) % 2 || strspn(text, "0123456789abcdefABCDEF") != 2 * size) return -1;
    for (size_t i = 0; i < size; i++) {
        char digits[] = {text[2 * i], text[2 * i + 1], 0};
        text[i] = (char)strtoul(digits, NULL, 16);
    }
    return (long)size;
}

static struct frame read_frame(char *hex, int opcode, int line_number) {
    long size = decode_hex(hex);
    if (size < 0) fail("line %d of the plan: invalid hex", line_number);
    struct frame frame = {.bytes = allocate(1, (size_t)size + FRAME_HEADER_BYTES_MAX)};
    frame.size = build_frame(frame.bytes, opcode, hex, (size_t)size);
    return frame;
}

/* Reads a line of the plan. Returns the number of the connection's group. */
static int read_connection(struct connection *connection, char *line, int line_number) {
    int fields = 1;
    for (const char *at = line; (at = strchr(at, '\t')); at++) fields++;
    if (fields < 3) fail("line %d of the plan: %d fields, at least 3 are needed", line_number, fields);
    const char *group = strsep(&line, "\t"), *opcode_name = strsep(&line, "\t");
    char *publication = strsep(&line, "\t"), *rest;
    long group_number = strtol(group, &rest, 10);
    if (rest == group || *rest || group_number < 0 || group_number >= LINKS_MAX)
        fail("line %d of the plan: the group must be a number below %d", line_number, LINKS_MAX);
    int opcode = !strcmp(opcode_name, "t") ? TEXT : BINARY;
    if (opcode == BINARY && strcmp(opcode_name, "b"))
        fail("line %d of the plan: the frame type must be t or b", line_number);
    if (strcmp(publication, "-")) {
        connection->publication = read_frame(publication, opcode, line_number);
        connection->time = find_mark(connection->publication.bytes, connection->publication.size);
    }
    connection->setup_count = fields - 3;
    connection->setup_messages = allocate((size_t)connection->setup_count, sizeof *connection->setup_messages);
    for (int i = 0; i < connection->setup_count; i++)
        connection->setup_messages[i] = read_frame(strsep(&line, "\t"), opcode, line_number);
    connection->link.number = line_number - 1;
    return (int)group_number;
}

static void join(struct group *group, struct connection *connection) {
    connection->group = group;
    if (!connection->publication.bytes) return;
    size_t size = ((size_t)group->publisher_count + 1) * sizeof *group->publishers;
    group->publishers = realloc(group->publishers, size);
    if (!group->publishers) fail("no memory for %zu bytes", size);
    group->publishers[group->publisher_count++] = connection;
}

struct plan read_plan(const char *file_name) {
    struct plan plan = {.connections = allocate(LINKS_MAX, sizeof *plan.connections),
                        .groups = allocate(LINKS_MAX, sizeof *plan.groups)};
    size_t size;
    char *text = read_file(file_name, &size), *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) && *line;) {
        if (plan.connection_count == LINKS_MAX) fail("the plan has more than %d connections", LINKS_MAX);
        struct connection *connection = &plan.connections[plan.connection_count++];
        int group = read_connection(connection, line, plan.connection_count);
        if (group >= plan.group_count) plan.group_count = group + 1;
        join(&plan.groups[group], connection);
    }
    free(text);
    return plan;
}
