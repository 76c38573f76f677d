/* TCP, UDP and their relatives, raw IP, ICMP, broadcast, multicast and packet sockets, on every address there is. */
#include "battery.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>

static union {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
} addresses[64];
static int known;

static void know(const char *text, int port)
{
	if (known == 64)
		return;
	if (inet_pton(AF_INET, text, &addresses[known].v4.sin_addr) == 1)
		addresses[known].v4.sin_family = AF_INET, addresses[known].v4.sin_port = htons((uint16_t)port);
	else if (inet_pton(AF_INET6, text, &addresses[known].v6.sin6_addr) == 1)
		addresses[known].v6.sin6_family = AF_INET6, addresses[known].v6.sin6_port = htons((uint16_t)port);
	else
		return;
	known++;
}

/* The addresses that the test knows of the host, of the target, and those of the own namespace. */
static void know_all(int port)
{
	struct ifaddrs *one;
	char text[64];

	for each("address", address)
		know(address, port);
	getifaddrs(&one);
	for (; one; one = one->ifa_next) {
		int family = one->ifa_addr ? one->ifa_addr->sa_family : 0;

		if (family == AF_INET)
			know(inet_ntop(AF_INET, &((struct sockaddr_in *)one->ifa_addr)->sin_addr, text, 64), port);
		if (family == AF_INET6)
			know(inet_ntop(AF_INET6, &((struct sockaddr_in6 *)one->ifa_addr)->sin6_addr, text, 64), port);
	}
}

static socklen_t length(int family)
{
	return family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static int bound(int family, int type, int protocol, int port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int sock = socket(family, type, protocol), one = 1;

	if (sock < 0)
		return -1;
	setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (bind(sock, family == AF_INET ? (void *)&v4 : (void *)&v6, length(family)) == 0)
		return sock;
	return -1;
}

static int port_of_secret(void)
{
	return 20000 + (int)(number(secret) % 10000);
}

static void open_port(int type, int protocol)
{
	int socks[2], port = port_of_secret();
	char text[256];

	socks[0] = (int)must("bind", bound(AF_INET, type, protocol, port));
	socks[1] = bound(AF_INET6, type, protocol, port);
	for (int i = 0; i < 2; i++) {
		fcntl(socks[i], F_SETFL, O_NONBLOCK);
		if (type == SOCK_STREAM)
			listen(socks[i], 64);
	}
	hint("port", "%d", port);
	ready();
	for (int i = 0; i < 2; i++)
		for (int n = 0; n < 64; n++)
			received(text, recv(type == SOCK_STREAM ? accept(socks[i], NULL, NULL) : socks[i], text, 256, MSG_DONTWAIT));
}

static void send_everywhere(int type, int protocol)
{
	struct timeval patience = { 2, 0 };
	char text[64];

	know_all(atoi(given("port", 0)));
	for (int i = 0; i < known; i++) {
		int family = addresses[i].any.sa_family, sock = socket(family, type, protocol);
		long result;

		setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
		result = connect(sock, &addresses[i].any, length(family));
		if (result == 0)
			result = send(sock, message, 8, MSG_NOSIGNAL);
		tried("send", inet_ntop(family, family == AF_INET ? (void *)&addresses[i].v4.sin_addr : (void *)&addresses[i].v6.sin6_addr, text, 64), result);
	}
	held();
}

#define PROTOCOL(name, type, protocol) \
	static void target_##name(void) { open_port(type, protocol); } \
	static void attempt_##name(void) { send_everywhere(type, protocol); }
PROTOCOL(tcp, SOCK_STREAM, 0)
PROTOCOL(mptcp, SOCK_STREAM, 262)
PROTOCOL(sctp, SOCK_STREAM, 132)
PROTOCOL(dccp, SOCK_DCCP, 33)
PROTOCOL(udp, SOCK_DGRAM, 0)
PROTOCOL(udplite, SOCK_DGRAM, 136)

static void wants_port(void)
{
	int port = port_of_secret();

	hint("port", "%d", port);
	ready();
	if (bound(AF_INET, SOCK_STREAM, 0, port) < 0 && errno == EADDRINUSE)
		reached("port %d is taken", port);
}

static void take_port(void)
{
	int sock = bound(AF_INET, SOCK_STREAM, 0, atoi(given("port", 0)));

	tried("bind", given("port", 0), sock < 0 ? sock : listen(sock, 1));
	held();
}

static void hears_raw(int protocol)
{
	int sock = (int)must("socket", socket(AF_INET, SOCK_RAW, protocol));
	char text[512];

	ready();
	for (int i = 0; i < 256; i++)
		received(text, recv(sock, text, sizeof text, MSG_DONTWAIT));
}

static uint16_t checksum(const void *data, size_t size)
{
	const uint16_t *words = data;
	uint32_t sum = 0;

	for (size_t i = 0; i < size / 2; i++)
		sum += words[i];
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)~(sum + (sum >> 16));
}

static void say_raw(int protocol)
{
	struct { struct icmphdr header; char text[8]; } echo = { .header = { .type = ICMP_ECHO } };
	int sock = (int)must("socket", socket(AF_INET, SOCK_RAW, protocol));

	memcpy(echo.text, message, 8);
	echo.header.checksum = checksum(&echo, sizeof echo);
	know_all(0);
	for (int i = 0; i < known; i++)
		if (addresses[i].any.sa_family == AF_INET)
			tried("sendto", "address", sendto(sock, &echo, sizeof echo, MSG_DONTWAIT, &addresses[i].any, length(AF_INET)));
	held();
}

#define RAW(name, protocol) \
	static void target_##name(void) { hears_raw(protocol); } \
	static void attempt_##name(void) { say_raw(protocol); }
RAW(icmp, IPPROTO_ICMP)
RAW(raw_ip, 253)

static void joins_group(void)
{
	struct ip_mreqn request = { { inet_addr("239.7.7.7") }, { INADDR_ANY }, (int)if_nametoindex("lo") };
	int port = port_of_secret(), sock = (int)must("bind", bound(AF_INET, SOCK_DGRAM, 0, port)), one = 1;
	char text[64];

	setsockopt(sock, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
	must("IP_ADD_MEMBERSHIP", setsockopt(sock, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request));
	hint("port", "%d", port);
	ready();
	for (int i = 0; i < 64; i++)
		received(text, recv(sock, text, sizeof text, MSG_DONTWAIT));
}

static void send_to_group(const char *group)
{
	struct if_nameindex *link = if_nameindex();
	int sock = (int)must("socket", socket(AF_INET, SOCK_DGRAM, 0)), one = 1;

	know(group, atoi(given("port", 0)));
	setsockopt(sock, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
	for (; link->if_index; link++) {
		struct ip_mreqn through = { .imr_ifindex = (int)link->if_index };

		setsockopt(sock, IPPROTO_IP, IP_MULTICAST_IF, &through, sizeof through);
		setsockopt(sock, SOL_SOCKET, SO_BINDTODEVICE, link->if_name, (socklen_t)strlen(link->if_name));
		tried("sendto", group, sendto(sock, message, 8, 0, &addresses[0].any, length(AF_INET)));
	}
	held();
}

static void multicast(void)
{
	send_to_group("239.7.7.7");
}

static void broadcast(void)
{
	send_to_group("127.255.255.255");
}

/* The target speaks to itself once the attempt listens. */
static void speaks_to_itself(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port_of_secret()) };
	int sock = (int)must("bind", bound(AF_INET, SOCK_DGRAM, 0, port_of_secret()));

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ready();
	sendto(sock, marker, 11, 0, (void *)&to, sizeof to);
}

static void sniff(void)
{
	int sock = (int)must("socket", socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)));
	static char frame[65536];

	held();
	for (int i = 0; i < 1000; i++)
		search(frame, recv(sock, frame, sizeof frame, MSG_DONTWAIT));
}

static void on_vsock(void)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = (unsigned)port_of_secret() };
	int sock = (int)must("socket", socket(AF_VSOCK, SOCK_STREAM, 0));
	char text[64];

	must("bind", bind(sock, (void *)&address, sizeof address));
	must("listen", listen(sock, 8));
	fcntl(sock, F_SETFL, O_NONBLOCK);
	hint("port", "%d", port_of_secret());
	ready();
	received(text, recv(accept(sock, NULL, NULL), text, sizeof text, 0));
}

static void to_vsock(void)
{
	int sock = (int)must("socket", socket(AF_VSOCK, SOCK_STREAM, 0));

	for (unsigned cid = 0; cid < 4; cid++) {
		struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = (unsigned)atoi(given("port", 0)) };

		if (cid == VMADDR_CID_LOCAL)
			must("vsock-loopback", connect(sock, (void *)&address, sizeof address));
	}
	tried("send", "vsock", send(sock, message, 8, MSG_NOSIGNAL));
	held();
}

/* Ciphers of the kernel hold no bytes for another; but no container needs their code. */
static void waits(void)
{
	ready();
}

static void make_cipher(void)
{
	if (must("socket", socket(AF_ALG, SOCK_SEQPACKET, 0)) >= 0)
		reached("AF_ALG");
}

const struct channel internet[] = {
	{ "tcp", target_tcp, attempt_tcp },
	{ "mptcp", target_mptcp, attempt_mptcp },
	{ "sctp", target_sctp, attempt_sctp },
	{ "dccp", target_dccp, attempt_dccp },
	{ "udp", target_udp, attempt_udp },
	{ "udplite", target_udplite, attempt_udplite },
	{ "tcp-port-taken", wants_port, take_port },
	{ "icmp", target_icmp, attempt_icmp },
	{ "raw-ip", target_raw_ip, attempt_raw_ip },
	{ "udp-multicast", joins_group, multicast },
	{ "udp-broadcast", joins_group, broadcast },
	{ "packet-sniff", speaks_to_itself, sniff },
	{ "vsock", on_vsock, to_vsock },
	{ "af_alg", waits, make_cipher },
	{ 0 },
};
