/* Everything readable below /proc and /sys, and in every filesystem of the kernel's that can be mounted. */
#include "battery.h"
#include <ftw.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>

/* What the target leaves wherever a name can be left. */
static void leaves_names(void)
{
	struct { sa_family_t family; char name[20]; } name = { AF_UNIX, "" };
	int sock = (int)must("socket", socket(AF_UNIX, SOCK_DGRAM, 0));

	memcpy(name.name + 1, marker, 11);
	must("bind", bind(sock, (void *)&name, sizeof(sa_family_t) + 12));
	must("prctl", prctl(PR_SET_NAME, marker));
	syscall(SYS_add_key, "user", marker, "x", 1, -4);
	ready();
}

static int look(const char *path, const struct stat *file, int type, struct FTW *walk)
{
	(void)walk;
	/* Some wait for events; some would show what the attempt was told. */
	if (type == FTW_F && S_ISREG(file->st_mode) && !strstr(path, "/trace_pipe") && !strstr(path, "/kmsg") &&
	    !strstr(path, "/kcore") && !strstr(path, "/pagemap") && !strstr(path, "/cmdline") &&
	    !strstr(path, "/environ"))
		search_file(path);
	return 0;
}

static void look_everywhere(void)
{
	nftw("/proc", look, 32, FTW_PHYS);
	nftw("/sys", look, 32, FTW_PHYS);
}

static void look_in_fresh_mounts(void)
{
	static const char *const kinds[] = {
		"proc", "sysfs", "debugfs", "tracefs", "securityfs", "bpf", "cgroup2", "cgroup", "mqueue", "devpts",
		"configfs", "pstore", "fusectl", "binfmt_misc", "hugetlbfs", "devtmpfs", "efivarfs", "nfsd", "resctrl",
	};

	must("unshare", unshare(CLONE_NEWNS));
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		long result = mount("battery", "/tmp", kinds[i], 0, NULL);

		tried("mount", kinds[i], result);
		if (result == 0) {
			nftw("/tmp", look, 32, FTW_PHYS);
			umount2("/tmp", MNT_DETACH);
		}
	}
}

/* A range lock is listed with its ends. */
static void has_lock(void)
{
	char *path = in_tmp("locked");
	struct flock range = { .l_type = F_WRLCK, .l_start = number(secret), .l_len = 1 };
	int fd = (int)must("open", open(path, O_CREAT | O_RDWR, 0666));

	must("F_SETLK", fcntl(fd, F_SETLK, &range));
	hint("secret", "at-%u-", number(secret));
	ready();
	unlink(path);
}

static void list_locks(void)
{
	FILE *file = fopen("/proc/locks", "r");
	char line[256], text[64];
	unsigned long start;

	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "%*s %*s %*s %*s %*s %*s %lu", &start) == 1)
			learned(text, sprintf(text, "at-%lu-", start));
}

static void has_unix_socket(void)
{
	struct { sa_family_t family; char name[20]; } name = { AF_UNIX, "" };
	int sock = (int)must("socket", socket(AF_UNIX, SOCK_DGRAM, 0));

	memcpy(name.name + 1, marker, 11);
	must("bind", bind(sock, (void *)&name, sizeof(sa_family_t) + 12));
	ready();
}

static void list_unix_sockets(void)
{
	search_file("/proc/net/unix");
}

static void has_mount(void)
{
	must("unshare", unshare(CLONE_NEWNS));
	mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	must("mount", mount(marker, "/tmp", "tmpfs", 0, NULL));
	ready();
}

static void list_mounts(void)
{
	char path[64];

	search_file("/proc/self/mountinfo");
	for each("pid", pid) {
		snprintf(path, sizeof path, "/proc/%s/mountinfo", pid);
		search_file(path);
	}
}

const struct channel traces[] = {
	{ "everything-in-proc-and-sys", leaves_names, look_everywhere },
	{ "everything-in-fresh-mounts", leaves_names, look_in_fresh_mounts },
	{ "proc-locks", has_lock, list_locks },
	{ "proc-net-unix", has_unix_socket, list_unix_sockets },
	{ "proc-mountinfo", has_mount, list_mounts },
	{ 0 },
};
