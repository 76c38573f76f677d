/*
 * PID 1 of a container. It has no fd but 0 to 2, holds nothing of the host, and is not trusted by anyone: root
 * inside may trace it, stop it, or make it stop the container.
 *
 *     reaping --SIGTERM--> stopping: SIGTERM and SIGCONT to all, once --nobody left--> exit 0
 *
 * Each process gets its SIGTERM exactly once. What a process starts after that belongs to its own way of ending
 * (`trap 'pg_ctl stop' TERM`) and is not disturbed; whoever does not end is killed from outside after the grace
 * period. Processes of Exec are children of supervisors outside: their end sends no SIGCHLD here, so that
 * while stopping (only then) init looks around a hundred times a second.
 *
 * SIGCHLD and SIGTERM are blocked and waited for. All other signals keep their default action, with which the
 * kernel drops them for the init of a PID namespace (pid_namespaces(7)).
 */
#include "native.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(void)
{
	while (waitpid(-1, NULL, WNOHANG | __WALL) > 0)
		;
}

/* kill(2) with -1 means all but the caller and PID 1 itself; zombies that somebody outside has to reap count. */
static bool alone(void)
{
	return kill(-1, 0) < 0 && errno == ESRCH;
}

static void wait_until_alone(const sigset_t *awaited)
{
	const struct timespec pause = { .tv_nsec = 10000000 };

	while (!alone()) {
		sigtimedwait(awaited, NULL, &pause);
		reap();
	}
}

int init_main(void)
{
	sigset_t awaited;

	if (getpid() != 1)
		return 2;
	prctl(PR_SET_NAME, "init");
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGCHLD);
	sigaddset(&awaited, SIGTERM);
	sigprocmask(SIG_SETMASK, &awaited, NULL);
	/* Ignored ones are inherited by execve: then children would be reaped without a sign. */
	signal(SIGCHLD, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	reap();
	while (sigwaitinfo(&awaited, NULL) != SIGTERM)
		reap();
	kill(-1, SIGTERM);
	/* A stopped process would never see it. */
	kill(-1, SIGCONT);
	wait_until_alone(&awaited);
	return 0;
}
