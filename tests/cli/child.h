/* child.h - run the program as a user does: with arguments, files, pipes or a terminal. */
#ifndef TEST_CHILD_H
#define TEST_CHILD_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILD_MOST_ARG 40

/* What a program that ended has left; status 128 + n: ended by signal n. */
struct child {
    int status;
    char *out, *err;
};

static inline void child_release(struct child *c)
{
    free(c->out);
    free(c->err);
    *c = (struct child){ 0 };
}

static inline const char *child_build(void)
{
    const char *build = getenv("DSTAR_BUILD");
    return build ? build : "build";
}

/* The file's content, zero-terminated, to be freed; NULL: there is none. */
static inline char *child_slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    size_t n = 0, cap = 1 << 16;
    char *text = malloc(cap + 1);
    for (size_t got; text && (got = fread(text + n, 1, cap - n, f)) > 0;) {
        n += got;
        if (n == cap)
            text = realloc(text, (cap *= 2) + 1);
    }
    fclose(f);
    if (text)
        text[n] = 0;
    if (len)
        *len = n;
    return text;
}

/* Words parted by single spaces; a word in quotes ('...') may contain spaces. Changes `line`. */
static inline int child_split(char *line, char **arg)
{
    int n = 0;
    while (*line && n < CHILD_MOST_ARG - 1) {
        char end = *line == '\'' ? '\'' : ' ';
        line += end == '\'';
        arg[n++] = line;
        while (*line && *line != end)
            line++;
        if (*line == '\'')
            *line++ = 0;
        if (*line)
            *line++ = 0;
    }
    arg[n] = NULL;
    return n;
}

/* Start the program with the words of `line`, its streams as given. Returns its process id. */
static inline pid_t child_start(const char *line, int in, int out, int err)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    char words[4096], path[512], *arg[CHILD_MOST_ARG + 1];
    snprintf(words, sizeof words, "%s", line);
    snprintf(path, sizeof path, "%s/dstar", child_build());
    arg[0] = path;
    child_split(words, arg + 1);
    if (in == out) { /* a terminal becomes that of the child */
        setsid();
        ioctl(in, TIOCSCTTY, 0);
    }
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    execv(path, arg);
    _exit(127);
}

static inline int child_status(int wait_status)
{
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

static inline int child_wait(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return child_status(status);
}

/* Run it to its end with `input` (NULL: nothing) on standard input. */
static inline struct child child_run_with(const char *input, const char *line)
{
    char name[3][32] = { "/tmp/dstar-in-XXXXXX", "/tmp/dstar-out-XXXXXX",
                         "/tmp/dstar-err-XXXXXX" };
    int fd[3];
    for (int i = 0; i < 3; i++)
        fd[i] = mkstemp(name[i]);
    if (input && write(fd[0], input, strlen(input)) < 0)
        abort();
    lseek(fd[0], 0, SEEK_SET);
    struct child c = { .status = child_wait(child_start(line, fd[0], fd[1], fd[2])) };
    c.out = child_slurp(name[1], NULL);
    c.err = child_slurp(name[2], NULL);
    for (int i = 0; i < 3; i++) {
        close(fd[i]);
        unlink(name[i]);
    }
    return c;
}

static inline struct child child_run(const char *line)
{
    return child_run_with(NULL, line);
}

static inline void child_sleep(int ms)
{
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    nanosleep(&t, NULL);
}

#endif
