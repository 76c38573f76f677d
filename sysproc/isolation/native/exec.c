/*
 * The supervisor of one process started by Exec: bears the child into the container, then carries its input and
 * output (exec_pump.c) until it ends. It stays outside, in the launcher's cgroup and the host's namespaces, and
 * needs neither launcher nor daemon any more.
 *
 *     spec ─▶ pipes ─▶ inside (exec_enter.c) ─▶ clone3 into the cgroup ─▶ outside again ─▶ pump ─▶ exit
 *               └──────────── any failure: into the state page, PHASE_DONE ────────────────────────▶
 */
#include "exec.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

uint64_t *state;
char scratch[262144];

static int map_state(void)
{
	struct stat file;

	if (fstat(STATE_FD, &file) < 0 || file.st_size < STATE_BYTES)
		return -1;
	state = mmap(NULL, STATE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, STATE_FD, 0);
	return state == MAP_FAILED ? -1 : 0;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Nothing was started: nobody will ever write output. */
static int not_started(enum step step, int number)
{
	put(STATE_FAILED_STEP, step);
	put(STATE_FAILED_ERRNO, (uint64_t)number);
	put(STATE_EXIT_NUMBER, CANNOT_EXECUTE);
	put(STATE_EXIT_KIND, EXIT_CODE);
	put(STATE_ENDED_NS, now_ns());
	put(STATE_PHASE, PHASE_DONE);
	eventfd_write(NEWS_FD, 1);
	return 0;
}

/* A pipe that the user inside may open again as /dev/stdout, so it is the user's. */
static int make_pipe(int *reading, int *writing, uint32_t owner)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	*reading = fds[0];
	*writing = fds[1];
	return fchown(fds[0], owner, (gid_t)-1);
}

static int make_ends(const struct spec *spec, struct ends *ends)
{
	int sockets[2];

	*ends = (struct ends) { -1, -1, -1, -1, -1, -1, -1, -1 };
	if (spec->flags & FLAG_TERMINAL) {
		/* Between the pty's master and the file: splice(2) needs a pipe on one side. */
		if (make_pipe(&ends->stdout_ours, &ends->stdout_theirs, 0) < 0
		    || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
			return -1;
		ends->terminal_ours = sockets[0];
		ends->terminal_theirs = sockets[1];
		return 0;
	}
	if (spec->flags & FLAG_STDIN && make_pipe(&ends->stdin_theirs, &ends->stdin_ours, spec->host_uid) < 0)
		return -1;
	return make_pipe(&ends->stdout_ours, &ends->stdout_theirs, spec->host_uid) < 0
		|| make_pipe(&ends->stderr_ours, &ends->stderr_theirs, spec->host_uid) < 0 ? -1 : 0;
}

/* What the child needs of the host's files, while we see them. */
static int open_cgroups(struct spec *spec, int *cgroup)
{
	for (uint32_t i = 0; i < spec->task_count; i++) {
		spec->task_fds[i] = open(spec->tasks[i], O_WRONLY | O_CLOEXEC);
		if (spec->task_fds[i] < 0) {
			put_text(STATE_PATH_TEXT, spec->tasks[i]);
			return -1;
		}
	}
	*cgroup = *spec->cgroup ? open(spec->cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	return *spec->cgroup && *cgroup < 0 ? -1 : 0;
}

static void close_cgroups(const struct spec *spec, int cgroup)
{
	for (uint32_t i = 0; i < spec->task_count; i++)
		close(spec->task_fds[i]);
	if (cgroup >= 0)
		close(cgroup);
}

/*
 * Into the cgroup of version 2 at birth: no migration, no grace period. Returns as fork(2) does. In the child all
 * signals wait until it executes what was asked for: else one that comes before would be ignored there, as it is here.
 */
static pid_t bear(int cgroup, int *pidfd)
{
	struct clone_args args = {
		.flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)pidfd, .exit_signal = SIGCHLD,
	};
	const uint64_t all = ~UINT64_C(0);
	uint64_t before;
	pid_t pid;

	if (cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid)
		syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
	return pid;
}

/* What the child got and the supervisor does not use. */
static void let_go(struct ends *ends)
{
	int theirs[] = { ends->stdin_theirs, ends->stderr_theirs, ends->terminal_theirs, SPEC_FD };

	for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	if (ends->terminal_ours < 0) {
		close(ends->stdout_theirs);
		ends->stdout_theirs = -1;
	}
}

int exec_main(void)
{
	struct spec spec;
	struct ends ends;
	int pidfd = -1, cgroup;
	pid_t pid;

	hide_and_name("sysproc-exec");
	ignore_termination();
	signal(SIGCHLD, SIG_DFL);
	setsid();
	if (map_state() < 0)
		return 1;
	put(STATE_SUPERVISOR_PID, (uint64_t)getpid());
	if (read_spec(&spec) < 0)
		return not_started(STEP_SPEC, EINVAL);
	if (chdir("/") < 0 || look_around() < 0 || make_ends(&spec, &ends) < 0)
		return not_started(STEP_PIPES, errno);
	if (open_cgroups(&spec, &cgroup) < 0)
		return not_started(STEP_CGROUP, errno);
	if (step_inside() < 0)
		return not_started(STEP_ENTER_PIDS, errno);
	pid = bear(cgroup, &pidfd);
	if (!pid)
		child_main(&spec, &ends);
	if (step_outside() < 0)
		return 1;
	if (pid < 0)
		return not_started(STEP_CLONE, errno);
	close_cgroups(&spec, cgroup);
	put(STATE_PID_START, stat_field(pid, STAT_START_TIME));
	put(STATE_PID, (uint64_t)pid);
	put(STATE_STARTED_NS, now_ns());
	put(STATE_PHASE, PHASE_RUNNING);
	eventfd_write(NEWS_FD, 1);
	let_go(&ends);
	return pump(&spec, &ends, pidfd);
}
