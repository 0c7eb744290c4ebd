/* hello.c - ask a model one question: the library in one page.
 *
 *     build/hello models/pebble "What is a pebble?" */
#include <dwarfstar.h>
#include <stdio.h>
#include <string.h>

#define MAX_ANSWER_TOK 400

static int failed(const struct dstar_error *error)
{
    fprintf(stderr, "hello: %s\n", error->text);
    return 1;
}

static void print_event(void *user, const struct dstar_event *event)
{
    (void)user;
    if (event->kind == DSTAR_CONTENT)
        fwrite(event->text, 1, event->len, stdout);
    fflush(stdout);
}

/* The question as a JSON array of one message; false when it does not fit. */
static int write_message(char *out, size_t cap, const char *question)
{
    size_t n = (size_t)snprintf(out, cap, "[{\"role\": \"user\", \"content\": \"");
    for (; *question; question++) {
        unsigned char c = (unsigned char)*question;
        if (n + 16 > cap)
            return 0;
        if (c < 0x20 || c == '"' || c == '\\')
            n += (size_t)snprintf(out + n, cap - n, "\\u%04x", c);
        else
            out[n++] = (char)c;
    }
    snprintf(out + n, cap - n, "\"}]");
    return 1;
}

static int answer(dstar_engine *engine, const struct dstar_chat *chat, struct dstar_error *error)
{
    dstar_session *session = NULL;
    dstar_parser *parser = NULL;
    struct dstar_prompt prompt = { 0 };
    int code = dstar_session_new(&session, engine, error);
    if (code == 0)
        code = dstar_chat_render(engine, chat, &prompt, error);
    if (code == 0)
        code = dstar_parser_new(&parser, engine, chat, &prompt, error);
    if (code == 0)
        code = dstar_session_set(session, prompt.tokens.id, prompt.tokens.n, error);
    for (int i = 0; code >= 0 && i < MAX_ANSWER_TOK; i++) {
        int32_t token;
        code = dstar_next(session, &token, error);
        if (code == 1)
            code = dstar_parser_push(parser, token, error);
        if (code == 0)
            break;
    }
    if (code >= 0)
        code = dstar_parser_end(parser, code > 0, error);
    printf("\n");
    dstar_tokens_release(&prompt.tokens);
    dstar_parser_free(parser);
    dstar_session_free(session);
    return code;
}

int main(int argc, char **argv)
{
    struct dstar_error error;
    struct dstar_options options;
    struct dstar_chat chat;
    dstar_engine *engine;
    char message[4096];

    if (argc != 3 || !write_message(message, sizeof message, argv[2])) {
        fprintf(stderr, "usage: hello MODEL QUESTION\n");
        return 2;
    }
    dstar_options_init(&options);
    options.model = argv[1];
    if (dstar_open(&engine, &options, &error) < 0)
        return failed(&error);
    dstar_chat_init(&chat);
    chat.messages = message;
    chat.on_event = print_event;
    int code = answer(engine, &chat, &error);
    dstar_close(engine);
    return code < 0 ? failed(&error) : 0;
}
