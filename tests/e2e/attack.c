/*
 * What a container's root tries against its own cage, compiled by tests/e2e/test_lockdown.py and run inside.
 * Each line: what was tried, on what, the errno (0: it was let).
 *
 *     remount    clear each flag of each mount (mount_setattr), make read-only superblocks writable, unmount each
 *     nodes      mknod of devices where a file can be made, and open what could be made
 *     sysctls    open each file below /proc/sys for writing
 *     host       calls that act on the whole host
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

static void told(const char *what, const char *on, long result)
{
	printf("%s\t%s\t%d\n", what, on, result < 0 ? errno : 0);
}

static const struct { unsigned long long flag; const char *name, *option; } flags[] = {
	{ MOUNT_ATTR_RDONLY, "ro", "ro" }, { MOUNT_ATTR_NOSUID, "nosuid", "nosuid" },
	{ MOUNT_ATTR_NODEV, "nodev", "nodev" }, { MOUNT_ATTR_NOEXEC, "noexec", "noexec" },
};

static int has_option(const char *options, const char *option)
{
	char padded[512], wanted[64];

	snprintf(padded, sizeof padded, ",%s,", options);
	snprintf(wanted, sizeof wanted, ",%s,", option);
	return strstr(padded, wanted) != NULL;
}

static void remount(void)
{
	char line[4096], target[256][256], options[256][256];
	int count = 0;
	FILE *mounts = fopen("/proc/self/mountinfo", "r");

	while (count < 256 && fgets(line, sizeof line, mounts))
		if (sscanf(line, "%*s %*s %*s %*s %255s %255s", target[count], options[count]) == 2)
			count++;
	fclose(mounts);
	for (int i = 0; i < count; i++) {
		for (size_t f = 0; f < sizeof flags / sizeof *flags; f++) {
			struct mount_attr attr = { .attr_clr = flags[f].flag };

			if (has_option(options[i], flags[f].option))
				told(flags[f].name, target[i],
				     syscall(SYS_mount_setattr, AT_FDCWD, target[i], 0, &attr, sizeof attr));
		}
		if (has_option(options[i], "ro"))
			told("superblock", target[i], mount(NULL, target[i], NULL, MS_REMOUNT, NULL));
		told("all", target[i], mount(NULL, target[i], NULL, MS_REMOUNT | MS_BIND, NULL));
	}
	for (int i = count - 1; i > 0; i--)
		told("umount", target[i], umount2(target[i], MNT_DETACH));
}

static void nodes(char **directories)
{
	static const struct { const char *name; mode_t type; unsigned major, minor; } devices[] = {
		{ "mem", S_IFCHR, 1, 1 }, { "null", S_IFCHR, 1, 3 }, { "kmsg", S_IFCHR, 1, 11 },
		{ "loop0", S_IFBLK, 7, 0 }, { "loop-control", S_IFCHR, 10, 237 }, { "sda", S_IFBLK, 8, 0 },
		{ "vda", S_IFBLK, 254, 0 }, { "fuse", S_IFCHR, 10, 229 }, { "tun", S_IFCHR, 10, 200 },
	};
	char path[512];

	for (; *directories; directories++)
		for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
			snprintf(path, sizeof path, "%s/%s-made", *directories, devices[i].name);
			told("mknod", path, mknod(path, devices[i].type | 0666, makedev(devices[i].major, devices[i].minor)));
		}
}

static int try_sysctl(const char *path, const struct stat *file, int type, struct FTW *walk)
{
	(void)file, (void)walk;
	if (type == FTW_F || type == FTW_SL) {
		int fd = open(path, O_WRONLY | O_CLOEXEC);

		told("write", path, fd);
		if (fd >= 0)
			close(fd);
	}
	return 0;
}

static void host(void)
{
	struct timeval now = { .tv_sec = 1 };
	struct { unsigned bytes; int type; char data[128]; } handle = { .bytes = 8, .type = 1 };

	told("settimeofday", "-", settimeofday(&now, NULL));
	told("reboot", "-", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL));
	told("init_module", "-", syscall(SYS_init_module, "", 0, ""));
	told("kexec_load", "-", syscall(SYS_kexec_load, 0, 0, NULL, 0));
	told("swapon", "-", swapon("/etc/passwd", 0));
	told("syslog", "-", syscall(SYS_syslog, 3, (char[16]){ 0 }, 16));
	told("open_by_handle_at", "-", syscall(SYS_open_by_handle_at, open("/", O_RDONLY), &handle, O_RDONLY));
	told("acct", "-", acct("/tmp/acct"));
	told("perf_event_open", "-", syscall(SYS_perf_event_open, (char[128]){ 0 }, 0, -1, -1, 0));
	told("bpf", "-", syscall(SYS_bpf, 0, (char[64]){ 0 }, 64));
	told("iopl", "-", syscall(SYS_iopl, 3));
}

int main(int count, char **words)
{
	if (count > 2 && !strcmp(words[1], "nested") && unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) {
		words++;
		count--;
	}
	if (count > 1 && !strcmp(words[1], "remount"))
		remount();
	else if (count > 1 && !strcmp(words[1], "nodes"))
		nodes(words + 2);
	else if (count > 1 && !strcmp(words[1], "sysctls"))
		nftw("/proc/sys", try_sysctl, 16, FTW_PHYS);
	else
		host();
	return 0;
}
