/* Unix sockets by path and by abstract name, of every type, and fds passed through them. */
#include "battery.h"
#include <stddef.h>
#include <sys/un.h>

static socklen_t named(struct sockaddr_un *address, const char *name, int abstract)
{
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	snprintf(address->sun_path + abstract, sizeof address->sun_path - 1, "%s", name);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1);
}

static long take(int sock, char *text, size_t size, int rights)
{
	char control[64];
	struct iovec part = { text, size };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	long got = recvmsg(sock, &header, MSG_DONTWAIT);

	if (rights && got >= 0 && CMSG_FIRSTHDR(&header))
		return pread(*(int *)CMSG_DATA(CMSG_FIRSTHDR(&header)), text, size, 0);
	return rights ? -1 : got;
}

static void listening(int type, int abstract, int rights)
{
	struct sockaddr_un address;
	char text[64], *path = in_tmp("socket");
	int sock = (int)must("socket", socket(AF_UNIX, type, 0));

	must("bind", bind(sock, (void *)&address, named(&address, path, abstract)));
	if (type != SOCK_DGRAM)
		must("listen", listen(sock, 8));
	fcntl(sock, F_SETFL, O_NONBLOCK);
	hint("path", "%s", path);
	ready();
	for (int i = 0; i < 16; i++) {
		int from = type == SOCK_DGRAM ? sock : accept(sock, NULL, NULL);

		received(text, take(from, text, sizeof text, rights));
	}
	if (!abstract)
		unlink(path);
}

static long give(int sock, int rights)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { rights ? "x" : message, rights ? 1 : 8 };
	struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };

	if (rights) {
		int fd = memfd_create("battery", 0);

		write(fd, message, 8);
		header.msg_control = control;
		header.msg_controllen = sizeof control;
		*CMSG_FIRSTHDR(&header) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&header)), &fd, sizeof fd);
	}
	return sendmsg(sock, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void connecting(int type, int abstract, int rights)
{
	struct sockaddr_un address;
	const char *path;

	for (int i = 0; (path = way(given("path", 0), i)); i++) {
		int sock = (int)must("socket", socket(AF_UNIX, type, 0));
		long result = connect(sock, (void *)&address, named(&address, path, abstract));

		tried("connect", path, result);
		if (result == 0)
			tried("sendmsg", path, give(sock, rights));
	}
	held();
}

#define SOCKET(name, type, abstract, rights) \
	static void target_##name(void) { listening(type, abstract, rights); } \
	static void attempt_##name(void) { connecting(type, abstract, rights); }
SOCKET(path_stream, SOCK_STREAM, 0, 0)
SOCKET(path_dgram, SOCK_DGRAM, 0, 0)
SOCKET(path_seqpacket, SOCK_SEQPACKET, 0, 0)
SOCKET(path_rights, SOCK_STREAM, 0, 1)
SOCKET(abstract_stream, SOCK_STREAM, 1, 0)
SOCKET(abstract_dgram, SOCK_DGRAM, 1, 0)
SOCKET(abstract_seqpacket, SOCK_SEQPACKET, 1, 0)
SOCKET(abstract_rights, SOCK_DGRAM, 1, 1)

const struct channel unix_sockets[] = {
	{ "unix-path-stream", target_path_stream, attempt_path_stream },
	{ "unix-path-dgram", target_path_dgram, attempt_path_dgram },
	{ "unix-path-seqpacket", target_path_seqpacket, attempt_path_seqpacket },
	{ "unix-path-scm_rights", target_path_rights, attempt_path_rights },
	{ "unix-abstract-stream", target_abstract_stream, attempt_abstract_stream },
	{ "unix-abstract-dgram", target_abstract_dgram, attempt_abstract_dgram },
	{ "unix-abstract-seqpacket", target_abstract_seqpacket, attempt_abstract_seqpacket },
	{ "unix-abstract-scm_rights", target_abstract_rights, attempt_abstract_rights },
	{ 0 },
};
