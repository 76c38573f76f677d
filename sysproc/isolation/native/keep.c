/*
 * The keeper: parent of a container's init, outside the container. The builder becomes it by execve, so that init
 * stays its child. It holds what belongs to the running container, for any daemon to take by pidfd_getfd(2):
 *
 *     fd 3  the status file: how init ended           fd 5  the listening socket of the container
 *     fd 4  init's pidfd                              fd 6  the container's /dev, a directory
 *
 *     waits for init --ended--> writes `exited N` or `killed N` and a newline --> exit 0
 *
 * It does nothing else, so that nothing but SIGKILL ends it early; a daemon that finds the status file empty then
 * knows that nobody saw init's end.
 */
#include "native.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STATUS_FD = 3, INIT_PIDFD = 4 };

/* One write: a reader sees nothing or all of it. */
static int write_status(const siginfo_t *end)
{
	char line[32], *at = add_text(line, end->si_code == CLD_EXITED ? "exited " : "killed ");
	size_t length;

	at = add_text(add_number(at, (unsigned)end->si_status), "\n");
	length = (size_t)(at - line);
	return pwrite(STATUS_FD, line, length, 0) == (ssize_t)length ? 0 : 1;
}

int keep_main(void)
{
	siginfo_t end;

	hide_and_name("sysproc-keep");
	ignore_termination();
	/* Ignored, it would make the kernel reap init without asking. */
	signal(SIGCHLD, SIG_DFL);
	setsid();
	if (chdir("/") < 0)
		return 1;
	/* So that a disk that is full by then does not lose the status. */
	(void)!fallocate(STATUS_FD, FALLOC_FL_KEEP_SIZE, 0, 32);
	while (waitid(P_PIDFD, INIT_PIDFD, &end, WEXITED) < 0)
		if (errno != EINTR)
			return 1;
	return write_status(&end);
}
