/*
 * Joining namespaces of another process, and what namespaces hold for themselves.
 *
 * A target that has a namespace of its own is still a process of its container, whose root may join it.
 */
#include "battery.h"
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

static void apart(int kind)
{
	must("unshare", unshare(kind));
}

static int join(const char *pid, const char *name)
{
	char path[64];
	int fd, result;

	snprintf(path, sizeof path, "/proc/%s/ns/%s", pid, name);
	fd = open(path, O_RDONLY);
	tried("open", path, fd);
	if (fd < 0)
		return fd;
	result = setns(fd, 0);
	tried("setns", path, result);
	return result;
}

static void own_name(void)
{
	apart(CLONE_NEWUTS);
	must("sethostname", sethostname(marker, strlen(marker)));
	ready();
}

static void learn_name(void)
{
	struct utsname names;

	uname(&names);
	search(&names, sizeof names);
}

static void join_uts(void)
{
	for each("pid", pid)
		if (join(pid, "uts") == 0)
			learn_name();
}

static void join_by_pidfd(void)
{
	for each("pid", pid) {
		int fd = (int)syscall(SYS_pidfd_open, atoi(pid), 0);
		long result = fd < 0 ? fd : setns(fd, CLONE_NEWUTS);

		tried("setns", pid, result);
		if (result == 0)
			learn_name();
	}
}

static void own_mounts(void)
{
	apart(CLONE_NEWNS);
	must("mount", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	must("mount", mount("battery", "/tmp", "tmpfs", 0, NULL));
	write_file("/tmp/battery", marker);
	ready();
}

static void join_mounts(void)
{
	for each("pid", pid)
		if (join(pid, "mnt") == 0)
			search_file("/tmp/battery");
}

static void own_network(void)
{
	apart(CLONE_NEWNET);
	int sock = (int)must("socket", socket(AF_UNIX, SOCK_DGRAM, 0));
	struct { sa_family_t family; char name[20]; } address = { AF_UNIX, "" };

	memcpy(address.name + 1, marker, 11);
	must("bind", bind(sock, (void *)&address, sizeof(sa_family_t) + 12));
	ready();
}

static void join_network(void)
{
	for each("pid", pid)
		if (join(pid, "net") == 0)
			search_file("/proc/thread-self/net/unix");
}

static void own_ipc(void)
{
	struct { long type; char text[16]; } sent = { 1, "" };

	apart(CLONE_NEWIPC);
	snprintf(sent.text, sizeof sent.text, "%s", marker);
	must("msgsnd", msgsnd((int)must("msgget", msgget(77, IPC_CREAT | 0666)), &sent, 16, 0));
	ready();
}

static void join_ipc(void)
{
	struct { long type; char text[16]; } got;

	for each("pid", pid)
		if (join(pid, "ipc") == 0)
			search(got.text, msgrcv(msgget(77, 0), &got, 16, 0, IPC_NOWAIT));
}

static long uptime(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec;
}

/* The offset is the secret: 24 bits of seconds. */
static void own_clock(void)
{
	char text[64];
	int fd, ends[2];

	apart(0x80 /* CLONE_NEWTIME */);
	fd = (int)must("open", open("/proc/self/timens_offsets", O_WRONLY));
	must("write", write(fd, text, (size_t)sprintf(text, "boottime %u 0\n", number(secret) >> 8)));
	must("pipe", pipe(ends));
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		close(ends[1]);
		read(ends[0], text, 1);
		_exit(0);
	}
	hint("child", "%d", child);
	hint("secret", "%.6s", secret);
	ready();
	close(ends[1]);
	waitpid(child, NULL, 0);
}

static void join_clock(void)
{
	for each("child", pid) {
		long before = uptime(), offset;
		char text[64];

		if (join(pid, "time") < 0)
			continue;
		offset = uptime() - before;
		for (long near = offset - 1; near < offset + 2; near++)
			learned(text, sprintf(text, "%06lx", near));
	}
}

static void watches_name(int domain)
{
	struct utsname before, after;

	uname(&before);
	ready();
	uname(&after);
	if (!domain && strcmp(before.nodename, after.nodename)) {
		received(after.nodename, (long)strlen(after.nodename));
		sethostname(before.nodename, strlen(before.nodename));
	}
	if (domain && strcmp(before.domainname, after.domainname)) {
		received(after.domainname, (long)strlen(after.domainname));
		setdomainname(before.domainname, strlen(before.domainname));
	}
}

static void watches_hostname(void)
{
	watches_name(0);
}

static void watches_domainname(void)
{
	watches_name(1);
}

static void change_hostname(void)
{
	char before[128];

	gethostname(before, sizeof before);
	tried("sethostname", message, sethostname(message, 8));
	held();
	sethostname(before, strlen(before));
}

static void change_domainname(void)
{
	tried("setdomainname", message, setdomainname(message, 8));
	held();
	setdomainname("(none)", 6);
}

static void read_text(const char *path, char *text, size_t size)
{
	int fd = (int)must(path, open(path, O_RDONLY));
	long got = must("read", read(fd, text, size - 1));

	text[got] = 0;
	close(fd);
}

static void watches_sysctl(const char *path)
{
	char before[64], after[64];

	read_text(path, before, sizeof before);
	ready();
	read_text(path, after, sizeof after);
	if (strcmp(before, after))
		received(after, (long)strlen(after));
}

static void change_sysctl(const char *path)
{
	char before[64];
	int fd;

	read_text(path, before, sizeof before);
	fd = open(path, O_WRONLY);
	tried("write", path, write(fd, message, 8)); /* decimal digits only, and a value that any of them may have */
	held();
	pwrite(fd, before, strlen(before), 0);
}

static const char ipc_sysctl[] = "/proc/sys/kernel/msgmax", net_sysctl[] = "/proc/sys/net/ipv4/tcp_max_syn_backlog",
		  user_sysctl[] = "/proc/sys/user/max_mnt_namespaces", queue_sysctl[] = "/proc/sys/fs/mqueue/queues_max";

#define SYSCTL(name) \
	static void watches_##name(void) { watches_sysctl(name); } \
	static void change_##name(void) { change_sysctl(name); }
SYSCTL(ipc_sysctl)
SYSCTL(net_sysctl)
SYSCTL(user_sysctl)
SYSCTL(queue_sysctl)

const struct channel namespaces[] = {
	{ "setns-uts", own_name, join_uts },
	{ "setns-mnt", own_mounts, join_mounts },
	{ "setns-net", own_network, join_network },
	{ "setns-ipc", own_ipc, join_ipc },
	{ "setns-time", own_clock, join_clock },
	{ "setns-pidfd", own_name, join_by_pidfd },
	{ "hostname", watches_hostname, change_hostname },
	{ "domainname", watches_domainname, change_domainname },
	{ "sysctl-kernel-msgmax", watches_ipc_sysctl, change_ipc_sysctl },
	{ "sysctl-net-ipv4", watches_net_sysctl, change_net_sysctl },
	{ "sysctl-user-namespaces", watches_user_sysctl, change_user_sysctl },
	{ "sysctl-mqueue", watches_queue_sysctl, change_queue_sysctl },
	{ 0 },
};
