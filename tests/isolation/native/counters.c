/*
 * What the kernel counts for each user or each machine: the attempt takes all there is and holds it, then the target
 * must still get its own.
 */
#include "battery.h"
#include <linux/keyctl.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/wait.h>

static void many_fds(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* The target may take one before, gives it back, and wants it again. */
static void wants(long (*one)(void), void (*back)(long))
{
	long got = must("one", one());

	if (back)
		back(got);
	else
		close((int)got);
	ready();
	got = one();
	if (got < 0)
		reached("errno %d", errno);
	else if (back)
		back(got);
}

static void take_all(long (*one)(void))
{
	int count = 0;

	many_fds();
	while (count < 100000 && one() >= 0)
		count++;
	printf("tried take all %d\n", errno);
	held();
}

#define FAILURES 30

/* Where the kernel counts down later than it says: all that comes free meanwhile is taken, too. */
static void take_all_that_comes(long (*one)(void))
{
	struct pollfd told = { .fd = 0, .events = POLLIN };
	int failures = 0;

	many_fds();
	while (failures < FAILURES) {
		failures = one() < 0 ? failures + 1 : 0;
		if (failures)
			usleep(10000);
	}
	printf("tried take all %d\nheld\n", errno);
	fflush(stdout);
	while (poll(&told, 1, 5) == 0)
		one();
}

static long inotify_one(void)
{
	return inotify_init1(0);
}

static long fanotify_one(void)
{
	return fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID, 0);
}

static long queue_one(void)
{
	static int count;
	struct mq_attr attributes = { .mq_maxmsg = 10, .mq_msgsize = 8192 };
	char name[64];
	mqd_t queue;

	snprintf(name, sizeof name, "/battery-%d-%d", getpid(), count++);
	queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
	if (queue >= 0)
		mq_unlink(name);
	return queue;
}

static long locked_one(void)
{
	int id = shmget(IPC_PRIVATE, 1 << 20, IPC_CREAT | 0600), error;
	long result;

	if (id < 0)
		return -1;
	result = shmctl(id, SHM_LOCK, NULL);
	error = errno;
	if (result == 0)
		shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	errno = error;
	return result < 0 ? -1 : id;
}

static void unlock_one(long id)
{
	shmctl((int)id, SHM_UNLOCK, NULL);
}

static long signal_one(void)
{
	return sigqueue(getpid(), SIGRTMIN + 5, (union sigval){ 0 });
}

static void forget_signals(long unused)
{
	(void)unused;
	signal(SIGRTMIN + 5, SIG_IGN);
	signal(SIGRTMIN + 5, SIG_DFL);
}

static void block_signal(void)
{
	sigset_t set;

	signal(SIGRTMIN + 5, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 5);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static long key_one(void)
{
	static int count;
	char name[32];

	snprintf(name, sizeof name, "key-%d-%d", getpid(), count++);
	return syscall(SYS_add_key, "user", name, "x", 1, KEY_SPEC_PROCESS_KEYRING);
}

static void remove_key(long key)
{
	syscall(SYS_keyctl, KEYCTL_UNLINK, key, KEY_SPEC_PROCESS_KEYRING);
}

/* fds on their way in messages; each message has as many as may be. */
static long send_one(void)
{
	char control[CMSG_SPACE(250 * sizeof(int))] = { 0 };
	struct iovec part = { "x", 1 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) < 0)
		return -1;
	*CMSG_FIRSTHDR(&header) = (struct cmsghdr){ CMSG_LEN(250 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	if (sendmsg(pair[0], &header, MSG_DONTWAIT) < 0)
		return -1;
	close(pair[0]);
	return pair[1];
}

/* Pages of pipes: who has too many gets small ones. */
static long pipe_one(void)
{
	int ends[2];

	if (pipe(ends) < 0)
		return -1;
	close(ends[1]);
	errno = ENOBUFS;
	return fcntl(ends[0], F_GETPIPE_SZ) < 65536 ? -1 : ends[0];
}

static void take_pipes(void)
{
	int ends[2];

	many_fds();
	for (int i = 0; i < 80; i++) {
		pipe(ends);
		tried("F_SETPIPE_SZ", "pipe", fcntl(ends[0], F_SETPIPE_SZ, 1 << 20));
	}
	for (int i = 0; i < 1100; i++)
		pipe(ends);
	held();
}

static long terminal_one(void)
{
	return open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
}

/* In several processes: one may not have so many fds. */
static void take_terminals(void)
{
	int ready_ends[2];
	char byte;

	pipe(ready_ends);
	fflush(stdout);
	for (int i = 0; i < 8; i++)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			many_fds();
			while (terminal_one() >= 0)
				;
			write(ready_ends[1], "x", 1);
			for (;;)
				pause();
		}
	for (int i = 0; i < 8; i++)
		read(ready_ends[0], &byte, 1);
	held(); /* the processes end with this one */
}

static long namespace_one(int kind)
{
	int ends[2], status;
	char path[64];

	pipe(ends);
	pid_t child = fork();
	if (child == 0) {
		char result = unshare(kind) < 0 ? (char)errno : 0;

		write(ends[1], &result, 1);
		pause();
		_exit(0);
	}
	char result = EIO;
	read(ends[0], &result, 1);
	close(ends[0]);
	close(ends[1]);
	snprintf(path, sizeof path, "/proc/%d/ns/%s", child, kind == CLONE_NEWUSER ? "user" : kind == CLONE_NEWNS ? "mnt" : "net");
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	errno = result;
	if (result) {
		close(fd);
		return -1;
	}
	return fd;
}

static long user_namespace(void)
{
	return namespace_one(CLONE_NEWUSER);
}

static long net_namespace(void)
{
	return namespace_one(CLONE_NEWNET);
}

static long mount_namespace(void)
{
	return namespace_one(CLONE_NEWNS);
}

/* Of the own limit only so few are left that all can be taken in a moment. */
static void take_namespaces(const char *file, long (*one)(void))
{
	char path[64], before[32] = { 0 };
	int fd;

	snprintf(path, sizeof path, "/proc/sys/user/%s", file);
	fd = (int)must("open", open(path, O_RDWR));
	pread(fd, before, sizeof before - 1, 0);
	must("write", pwrite(fd, "5\n", 2, 0));
	take_all_that_comes(one);
	pwrite(fd, before, strlen(before), 0);
}

static long process_one(void)
{
	pid_t child = fork();

	if (child == 0)
		for (;;)
			pause();
	return child;
}

static void end_process(long child)
{
	kill((pid_t)child, SIGKILL);
	waitpid((pid_t)child, NULL, 0);
}

/* As many of its user as it has itself, and a few. */
static void wants_process(void)
{
	struct rlimit limit = { 20, 20 };

	must("setrlimit", setrlimit(RLIMIT_NPROC, &limit));
	wants(process_one, end_process);
}

static void take_processes(int most)
{
	pid_t *children = calloc((size_t)most, sizeof *children);
	int count = 0;

	fflush(stdout);
	while (count < most && (children[count] = fork()) > 0)
		count++;
	if (count < most && children[count] == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	tried("fork", "all", count < most ? -1 : 0);
	held();
	for (int i = 0; i < count; i++)
		end_process(children[i]);
}

static void take_few_processes(void)
{
	take_processes(40);
}

static void wants_any_process(void)
{
	wants(process_one, end_process);
}

static void take_all_processes(void)
{
	take_processes(5000);
}

static long sysv_one(void)
{
	return msgget(IPC_PRIVATE, IPC_CREAT | 0600);
}

static void remove_sysv(long id)
{
	msgctl((int)id, IPC_RMID, NULL);
}

static void take_sysv(void)
{
	int ids[32001], count = 0;

	while (count < 32001 && (ids[count] = (int)sysv_one()) >= 0)
		count++;
	tried("msgget", "all", -1);
	held();
	while (count--)
		remove_sysv(ids[count]);
}

#define COUNTER(name, one, back) \
	static void wants_##name(void) { wants(one, back); } \
	static void take_##name(void) { take_all(one); }
COUNTER(inotify, inotify_one, NULL)
COUNTER(fanotify, fanotify_one, NULL)
COUNTER(queues, queue_one, NULL)
COUNTER(locked, locked_one, unlock_one)
COUNTER(rights, send_one, NULL)

static void wants_key(void)
{
	wants(key_one, remove_key);
}

static void take_keys(void)
{
	take_all_that_comes(key_one);
}

static void wants_pipe(void)
{
	wants(pipe_one, NULL);
}

static void wants_signal(void)
{
	block_signal();
	wants(signal_one, forget_signals);
}

static void take_signals(void)
{
	block_signal();
	take_all(signal_one);
}

static void wants_terminal(void)
{
	wants(terminal_one, NULL);
}

static void wants_sysv(void)
{
	wants(sysv_one, remove_sysv);
}

#define NAMESPACES(name, file) \
	static void wants_##name(void) { wants(name, NULL); } \
	static void take_##name(void) { take_namespaces(file, name); }
NAMESPACES(user_namespace, "max_user_namespaces")
NAMESPACES(net_namespace, "max_net_namespaces")
NAMESPACES(mount_namespace, "max_mnt_namespaces")

const struct channel counters[] = {
	{ "count-inotify", wants_inotify, take_inotify },
	{ "count-fanotify", wants_fanotify, take_fanotify },
	{ "count-mqueue-bytes", wants_queues, take_queues },
	{ "count-locked-memory", wants_locked, take_locked },
	{ "count-pending-signals", wants_signal, take_signals },
	{ "count-keys", wants_key, take_keys },
	{ "count-fds-in-flight", wants_rights, take_rights },
	{ "count-pipe-pages", wants_pipe, take_pipes },
	{ "count-terminals", wants_terminal, take_terminals },
	{ "count-user-namespaces", wants_user_namespace, take_user_namespace },
	{ "count-net-namespaces", wants_net_namespace, take_net_namespace },
	{ "count-mount-namespaces", wants_mount_namespace, take_mount_namespace },
	{ "count-processes-of-user", wants_process, take_few_processes },
	{ "count-processes-of-container", wants_any_process, take_all_processes },
	{ "count-sysv-queues", wants_sysv, take_sysv },
	{ 0 },
};
