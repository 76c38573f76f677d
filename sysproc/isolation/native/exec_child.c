/*
 * The child: from its birth to the execve of what was asked for. It is born where it can be seen from inside: in the
 * container's PID namespace, with its mounts, its network and its cgroup (exec_enter.c).
 *
 *     as the host's root   version 1 cgroups, oom_score_adj, limits, a keyring that is not the launcher's
 *     setns                the other namespaces of init, its users first
 *     inside, as its root  session, terminal or pipes, groups, keyring, signals, no other fds, seccomp
 *     as the user          working directory, search in PATH, execve
 *
 * Until execve it is not dumpable, so that root inside cannot trace it while it still has memory of the host. The
 * kernel sets that anew, to fs.suid_dumpable, with each change of ids: where that is 1 (for debugging, and then "ptrace
 * is unchecked", as the kernel says) a moment remains. A step that fails is written into the state page, which ends at
 * execve together with the rest of this memory.
 */
#include "exec.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

enum {
	NAMESPACES = CLONE_NEWUSER | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
	NULL_DEVICE = 1 << 8 | 3, PTMX_DEVICE = 5 << 8 | 2,    /* major << 8 | minor, while both are small */
};

void put_text(unsigned at, const char *text)
{
	char *to = (char *)state + at;
	size_t length = strnlen(text, TEXT_BYTES - 1);

	memcpy(to, text, length);
	to[length] = 0;
}

_Noreturn void fail(enum step step, int number, int code)
{
	put(STATE_FAILED_STEP, step);
	put(STATE_FAILED_ERRNO, (uint64_t)number);
	_exit(code);
}

static void must(long result, enum step step)
{
	if (result < 0)
		fail(step, errno, CANNOT_EXECUTE);
}

/*
 * "0" to `tasks` moves the writer alone. Unlike any write to `cgroup.procs` that waits for no grace period of RCU
 * (Linux 5.5, 9a3284fad42f6): 0.05 ms a hierarchy instead of 5 to 20 for the first.
 */
static void join_cgroups(const struct spec *spec)
{
	for (uint32_t i = 0; i < spec->task_count; i++)
		if (write(spec->task_fds[i], "0", 1) != 1) {
			put_text(STATE_PATH_TEXT, spec->tasks[i]);
			fail(STEP_CGROUP, errno, CANNOT_EXECUTE);
		}
}

/* Where the launcher is spared by the OOM killer, what runs in containers is not. */
static void reset_oom_score(void)
{
	int fd = open_at_host_proc("self/oom_score_adj", O_RDWR);
	char now[8];

	if (fd < 0)
		return;
	if (read(fd, now, sizeof now) > 0 && now[0] != '0')
		(void)!pwrite(fd, "0", 1, 0);
	close(fd);
}

/* A hard limit above our own needs CAP_SYS_RESOURCE, which not every host gives: then our own it is. */
static void set_limits(const struct spec *spec)
{
	struct rlimit now, wanted;

	for (const struct limit *limit = spec->limits; limit < spec->limits + spec->limit_count; limit++) {
		wanted = (struct rlimit) { .rlim_cur = limit->soft, .rlim_max = limit->hard };
		if (setrlimit((int)limit->resource, &wanted) == 0)
			continue;
		must(getrlimit((int)limit->resource, &now), STEP_LIMITS);
		wanted.rlim_max = now.rlim_max;
		wanted.rlim_cur = limit->soft < now.rlim_max ? limit->soft : now.rlim_max;
		must(setrlimit((int)limit->resource, &wanted), STEP_LIMITS);
	}
}

/*
 * The inherited session keyring crosses into the container. The first call, as root outside, is certain to leave
 * it; the second, as the user, gives one that the user owns, unless its quota of keys is used up (EDQUOT).
 */
static void join_own_keyring(void)
{
	syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
}

static bool is_device(int fd, dev_t device)
{
	struct stat file;

	return fstat(fd, &file) == 0 && S_ISCHR(file.st_mode) && file.st_rdev == device;
}

/* The container's own; where its root has put something else there, an input that is at its end. */
static int open_null(void)
{
	int fd = open("/dev/null", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), ends[2];

	if (fd >= 0 && is_device(fd, NULL_DEVICE)) {
		must(fcntl(fd, F_SETFL, 0), STEP_STDIO);
		return fd;
	}
	must(pipe2(ends, O_CLOEXEC), STEP_STDIO);
	close(ends[1]);
	return ends[0];
}

static void hand_over(int socket, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) } };
	char byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
	};

	memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
	must(sendmsg(socket, &message, MSG_NOSIGNAL), STEP_TERMINAL);
}

static void stay_hidden(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}

/* The user owns the terminal: fsuid decides about the node in devpts. The supervisor must not be given a fake. */
static int open_ptmx(uint32_t uid)
{
	struct open_how how = {
		.flags = O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	struct statfs filesystem;
	int fd;

	setfsuid(uid);
	fd = (int)syscall(SYS_openat2, AT_FDCWD, "/dev/pts/ptmx", &how, sizeof how);
	setfsuid(0);
	stay_hidden();
	must(fd, STEP_TERMINAL);
	if (!is_device(fd, PTMX_DEVICE) || fstatfs(fd, &filesystem) < 0
	    || filesystem.f_type != DEVPTS_SUPER_MAGIC)
		fail(STEP_TERMINAL, ENOTTY, CANNOT_EXECUTE);
	return fd;
}

static void become_foreground_of(int terminal, uint32_t window)
{
	struct winsize size = { .ws_row = (unsigned short)(window >> 16), .ws_col = (unsigned short)window };
	struct terminal_settings settings;

	must(ioctl(terminal, TCGETS, &settings), STEP_TERMINAL);
	settings.input_flags |= IUTF8;
	must(ioctl(terminal, TCSETS, &settings), STEP_TERMINAL);
	must(ioctl(terminal, TIOCSWINSZ, &size), STEP_TERMINAL);
	must(ioctl(terminal, TIOCSCTTY, 0), STEP_TERMINAL);
}

static void set_stdio(int in, int out, int error)
{
	must(dup2(in, 0), STEP_STDIO);
	must(dup2(out, 1), STEP_STDIO);
	must(dup2(error, 2), STEP_STDIO);
}

static void take_terminal(const struct spec *spec, int socket)
{
	int master = open_ptmx(spec->uid), unlocked = 0, terminal;

	must(ioctl(master, TIOCSPTLCK, &unlocked), STEP_TERMINAL);
	terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	must(terminal, STEP_TERMINAL);
	become_foreground_of(terminal, spec->window);
	hand_over(socket, master);
	set_stdio(terminal, terminal, terminal);
}

static void take_stdio(const struct spec *spec, const struct ends *ends)
{
	must(setsid(), STEP_STDIO);
	if (spec->flags & FLAG_TERMINAL)
		take_terminal(spec, ends->terminal_theirs);
	else
		set_stdio(spec->flags & FLAG_STDIN ? ends->stdin_theirs : open_null(), ends->stdout_theirs, ends->stderr_theirs);
}

/* The effective uid stays 0, and with it the capabilities that the seccomp filter needs, until become_user(). */
static void take_groups(const struct spec *spec, const struct user *user)
{
	must(setgroups(user->group_count, user->groups), STEP_USER);
	must(setresgid(user->gid, user->gid, user->gid), STEP_USER);
	must(setresuid(spec->uid, 0, 0), STEP_USER);
	stay_hidden();
}

/* As the kernel has them, all 64: libc keeps two for itself. */
static void reset_signals(void)
{
	const struct { uint64_t handler, flags, restorer, mask; } by_default = { 0 };

	for (int number = 1; number <= 64; number++)
		syscall(SYS_rt_sigaction, number, &by_default, NULL, sizeof(uint64_t));
}

/* From here on they do what they do to a process; those that came since its birth do it now. */
static void take_signals(void)
{
	const uint64_t none = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

static void load_filter(const struct spec *spec)
{
	struct sock_fprog program = { .len = (unsigned short)spec->filter_count, .filter = (void *)(uintptr_t)spec->filter };

	if (spec->filter_count)
		must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), STEP_SECCOMP);
}

/*
 * From now on it dies with the supervisor, without which nobody would ever know of it or end it. (Not if it is set-uid:
 * the kernel forgets the signal then. The daemon ends that one, by STATE_PID.)
 */
static void become_user(const struct spec *spec)
{
	must(setresuid(spec->uid, spec->uid, spec->uid), STEP_USER);
	stay_hidden();
	die_with_supervisor();
	must(chdir(spec->directory), STEP_DIRECTORY);
}

static const char *find_variable(char **environment, const char *name)
{
	size_t length = strlen(name);

	for (; *environment; environment++)
		if (!strncmp(*environment, name, length) && (*environment)[length] == '=')
			return *environment + length + 1;
	return NULL;
}

static void set_home(struct spec *spec, const struct user *user)
{
	static char variable[sizeof user->home + 8];

	if (find_variable(spec->environment, "HOME"))
		return;
	*add_text(add_text(variable, "HOME="), user->home) = 0;
	spec->environment[spec->environment_count] = variable;
}

/* As execvp(3), but what the kernel cannot execute is not given to a shell. */
static _Noreturn void search_and_execute(struct spec *spec)
{
	const char *name = spec->argv[0], *directory = find_variable(spec->environment, "PATH");
	int seen = ENOENT;
	char path[4096];

	if (strchr(name, '/') || !*name || !directory) {
		execve(name, spec->argv, spec->environment);
		explain_execve(name, errno);
	}
	for (const char *end = directory; end; directory = end + 1) {
		size_t length = (size_t)((end = strchrnul(directory, ':')) - directory);

		if (length + strlen(name) + 2 <= sizeof path) {
			memcpy(path, directory, length);
			*add_text(add_text(path + length, length ? "/" : ""), name) = 0;
			execve(path, spec->argv, spec->environment);
			if (errno == EACCES)
				seen = EACCES;
			else if (errno != ENOENT && errno != ENOTDIR)
				explain_execve(path, errno);
			else if (access(path, F_OK) == 0)
				explain_execve(path, ENOENT);
		}
		if (!*end)
			break;
	}
	explain_execve(name, seen);
}

/* EINVAL: a kernel without time namespaces; nothing was joined then. */
static void join_namespaces(void)
{
	if (setns(INIT_FD, NAMESPACES | CLONE_NEWTIME) < 0) {
		if (errno != EINVAL)
			fail(STEP_NAMESPACES, errno, CANNOT_EXECUTE);
		must(setns(INIT_FD, NAMESPACES), STEP_NAMESPACES);
	}
}

_Noreturn void child_main(struct spec *spec, const struct ends *ends)
{
	struct user user;

	put(STATE_PID_INSIDE, (uint64_t)syscall(SYS_getpid));
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	join_cgroups(spec);
	reset_oom_score();
	set_limits(spec);
	join_own_keyring();
	join_namespaces();
	stay_hidden();
	take_stdio(spec, ends);
	find_user(spec, &user);
	set_home(spec, &user);
	take_groups(spec, &user);
	join_own_keyring();
	umask(022);
	reset_signals();
	must(keep_only_supervisor(), STEP_STDIO);
	load_filter(spec);
	become_user(spec);
	take_signals();
	search_and_execute(spec);
}
