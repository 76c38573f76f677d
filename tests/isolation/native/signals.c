/* Every kind of signal, from every call that sends one. */
#include "battery.h"
#include <signal.h>
#include <sys/wait.h>

static volatile sig_atomic_t seen[65];

static void on_signal(int number, siginfo_t *info, void *context)
{
	(void)info, (void)context;
	seen[number] = 1;
}

static void catching(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };

	setpgid(0, 0);
	for (int n = 1; n < 65; n++)
		sigaction(n, &action, NULL);
	ready();
	for (int n = 1; n < 65; n++)
		if (seen[n])
			reached("signal %d", n);
}

static void kill_all_kinds(void)
{
	for each("pid", pid)
		for (int n = 1; n < 65; n++)
			if (n != SIGKILL && n != SIGSTOP && n != 32 && n != 33)
				tried("kill", pid, kill(atoi(pid), n));
}

static void child_waits(int options)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0)
		for (;;)
			pause();
	hint("child", "%d", child);
	ready();
	if (waitpid(child, &status, options | WNOHANG) == child)
		reached("status %x", status);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
}

static void child_is_killed(void)
{
	child_waits(0);
}

static void child_is_stopped(void)
{
	child_waits(WUNTRACED);
}

/* The process ends, or stops, a moment after the call. */
static void await_state(const char *pid, const char *states)
{
	char path[64], text[512], *after;

	snprintf(path, sizeof path, "/proc/%s/stat", pid);
	for (int i = 0; i < 2000; i++, usleep(1000)) {
		int fd = open(path, O_RDONLY);
		long got = read(fd, text, sizeof text - 1);

		close(fd);
		if (got <= 0)
			return;
		text[got] = 0;
		if ((after = strrchr(text, ')')) && strchr(states, after[2]))
			return;
	}
}

static void try_kill(int signal, const char *states)
{
	for each("child", pid) {
		long result = kill(atoi(pid), signal);

		tried("kill", pid, result);
		if (result == 0)
			await_state(pid, states);
	}
}

static void kill_child(void)
{
	try_kill(SIGKILL, "ZX");
}

static void stop_child(void)
{
	try_kill(SIGSTOP, "T");
}

static void by_tgkill(void)
{
	for each("pid", pid)
		tried("tgkill", pid, syscall(SYS_tgkill, atoi(pid), atoi(pid), SIGUSR1));
}

static void by_tkill(void)
{
	for each("pid", pid)
		tried("tkill", pid, syscall(SYS_tkill, atoi(pid), SIGUSR1));
}

static void by_sigqueue(void)
{
	for each("pid", pid)
		tried("sigqueue", pid, sigqueue(atoi(pid), SIGUSR1, (union sigval){ .sival_int = 1 }));
}

static void by_tgsigqueue(void)
{
	siginfo_t info = { .si_signo = SIGUSR1, .si_code = SI_QUEUE };

	for each("pid", pid)
		tried("rt_tgsigqueueinfo", pid, syscall(SYS_rt_tgsigqueueinfo, atoi(pid), atoi(pid), SIGUSR1, &info));
}

static void by_pidfd(void)
{
	for each("pid", pid) {
		int fd = (int)syscall(SYS_pidfd_open, atoi(pid), 0);

		tried("pidfd_open", pid, fd);
		if (fd >= 0)
			tried("pidfd_send_signal", pid, syscall(SYS_pidfd_send_signal, fd, SIGUSR1, NULL, 0));
	}
}

static void by_directory(void)
{
	char path[64];

	for each("pid", pid) {
		int fd;

		snprintf(path, sizeof path, "/proc/%s", pid);
		fd = open(path, O_RDONLY | O_DIRECTORY);
		tried("open", path, fd);
		if (fd >= 0)
			tried("pidfd_send_signal", pid, syscall(SYS_pidfd_send_signal, fd, SIGUSR1, NULL, 0));
	}
}

static void to_group(void)
{
	for each("pid", pid)
		tried("kill", pid, kill(-atoi(pid), SIGUSR1));
}

static void to_everyone(void)
{
	tried("kill", "-1", kill(-1, SIGUSR1));
}

static void own(int sign)
{
	for each("pid", pid) {
		int pair[2];

		socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
		tried("F_SETOWN", pid, fcntl(pair[0], F_SETOWN, sign * atoi(pid)));
		fcntl(pair[0], F_SETSIG, SIGUSR1);
		fcntl(pair[0], F_SETFL, O_ASYNC | O_NONBLOCK);
		tried("write", pid, write(pair[1], "x", 1));
	}
}

static void by_owner(void)
{
	own(1);
}

static void by_owner_group(void)
{
	own(-1);
}

const struct channel signals[] = {
	{ "kill-every-signal", catching, kill_all_kinds },
	{ "kill-sigkill", child_is_killed, kill_child },
	{ "kill-sigstop", child_is_stopped, stop_child },
	{ "kill-process-group", catching, to_group },
	{ "kill-everyone", catching, to_everyone },
	{ "tkill", catching, by_tkill },
	{ "tgkill", catching, by_tgkill },
	{ "sigqueue", catching, by_sigqueue },
	{ "rt_tgsigqueueinfo", catching, by_tgsigqueue },
	{ "pidfd_send_signal", catching, by_pidfd },
	{ "pidfd_send_signal-proc", catching, by_directory },
	{ "sigio-owner", catching, by_owner },
	{ "sigio-owner-group", catching, by_owner_group },
	{ 0 },
};
