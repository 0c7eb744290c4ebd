/* host.c - terminals, folders and signals through POSIX calls. */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

bool host_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

int host_columns(int fd)
{
    struct winsize size;
    return isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void host_use_utf8(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

char *host_program_dir(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0)
        return NULL;
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (!slash)
        return NULL;
    *slash = 0;
    return strdup(path);
}

int host_make_dirs(const char *path, struct err *e)
{
    char *part = strdup(path);
    if (!part)
        return err_set(e, ERR_NO_MEMORY, "%s: out of memory", path);
    int code = 0;
    for (char *p = part + 1; code == 0; p++) {
        char kept = *p;
        if (kept != '/' && kept != 0)
            continue;
        *p = 0;
        if (mkdir(part, 0700) < 0 && errno != EEXIST)
            code = err_errno(e, "%s: cannot make the folder", part);
        *p = kept;
        if (kept == 0)
            break;
    }
    free(part);
    return code;
}

static void (*_Atomic interrupt_fn)(void);

static void handler(int number)
{
    (void)number;
    int kept = errno;
    void (*fn)(void) = interrupt_fn;
    if (fn)
        fn();
    errno = kept;
}

void host_on_interrupt(void (*fn)(void))
{
    interrupt_fn = fn;
    /* No SA_RESTART: whoever waits for a line shall wake up. */
    struct sigaction action = { .sa_handler = fn ? handler : SIG_DFL };
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

void host_die_interrupted(void)
{
    signal(SIGINT, SIG_DFL);
    raise(SIGINT);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_UNBLOCK, &set, NULL); /* inside the handler it was blocked until here */
}

void host_quiet_pipes(void)
{
    signal(SIGPIPE, SIG_DFL);
}

double host_load(void)
{
    double load;
    return getloadavg(&load, 1) == 1 ? load : -1;
}
