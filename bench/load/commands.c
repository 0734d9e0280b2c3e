#include "commands.h"
#include "link.h"
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COMMAND_BYTES_MAX = 512 };

/* Bytes that were read from stdin after the last command. */
static char input[COMMAND_BYTES_MAX];
static size_t input_size;

/* Removes a line from the input and splits it. The words are valid until the next call. */
static bool take_line(struct words *command) {
    static char line[COMMAND_BYTES_MAX];
    char *newline = memchr(input, '\n', input_size);
    if (!newline) return false;
    size_t size = (size_t)(newline - input);
    memcpy(line, input, size);
    line[size] = 0;
    input_size -= size + 1;
    memmove(input, newline + 1, input_size);
    command->count = 0;
    for (char *word = strtok(line, " "); word && command->count < WORDS_MAX; word = strtok(NULL, " "))
        command->at[command->count++] = word;
    return command->count > 0;
}

bool await_command(struct words *command) {
    struct pollfd sources[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = links_epoll(), .events = POLLIN}};
    while (!take_line(command)) {
        if (poll(sources, 2, -1) < 0 && errno != EINTR) fail("poll: %s", strerror(errno));
        if (sources[1].revents) poll_links(POLL_MANY, 0);
        if (!sources[0].revents) continue;
        if (input_size == sizeof input) fail("a command is longer than %d bytes", COMMAND_BYTES_MAX);
        ssize_t size = read(STDIN_FILENO, input + input_size, sizeof input - input_size);
        if (size <= 0) return false;
        input_size += (size_t)size;
    }
    return true;
}

struct words arguments_from(int first, int argc, char **argv) {
    struct words words = {.count = 0};
    for (int i = first; i < argc && words.count < WORDS_MAX; i++) words.at[words.count++] = argv[i];
    return words;
}

const char *text_option(const struct words *words, const char *name) {
    size_t size = strlen(name);
    for (int i = 0; i < words->count; i++)
        if (!strncmp(words->at[i], name, size) && words->at[i][size] == '=') return words->at[i] + size + 1;
    return NULL;
}

double number_option(const struct words *words, const char *name, double fallback) {
    const char *text = text_option(words, name);
    if (!text && fallback >= 0) return fallback;
    char *rest;
    double number = text ? strtod(text, &rest) : -1;
    if (number < 0 || rest == text || *rest) fail("%s must be a number: %s", name, text ? text : "it is missing");
    return number;
}

void answer(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

char *read_file(const char *name, size_t *size) {
    FILE *file = fopen(name, "r");
    if (!file) fail("%s: %s", name, strerror(errno));
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *text = allocate(*size + 1, 1);
    if (fread(text, 1, *size, file) != *size) fail("%s cannot be read", name);
    fclose(file);
    return text;
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) fail("no memory for %zu x %zu bytes", count, size);
    return memory;
}
