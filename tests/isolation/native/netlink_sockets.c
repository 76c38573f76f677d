/* Netlink: messages to a process, to a group, what the kernel tells of others, and links pushed to them. */
#include "battery.h"
#include <arpa/inet.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/inet_diag.h>
#include <linux/unix_diag.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/prctl.h>

#define UEVENT_OF_UDEV 2
#define GROUP_OF_USERS 5

static struct {
	struct nlmsghdr header;
	char data[1024];
} request;

static int netlink(int protocol, uint32_t groups, uint32_t port)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = groups, .nl_pid = port };
	int sock = (int)must("socket", socket(AF_NETLINK, SOCK_RAW, protocol));

	must("bind", bind(sock, (void *)&address, sizeof address));
	return sock;
}

static void hears(int protocol, uint32_t groups, uint32_t port)
{
	int sock = netlink(protocol, groups, port);
	char text[4096];

	hint("port", "%u", port);
	ready();
	for (int i = 0; i < 64; i++)
		received(text, recv(sock, text, sizeof text, MSG_DONTWAIT));
}

static void say_to(int protocol, uint32_t groups, uint32_t port)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = groups, .nl_pid = port };
	int sock = netlink(protocol, 0, 0);
	char text[64];

	memset(text, 0, sizeof text);
	snprintf(text, sizeof text, "change@/%s", message);
	tried("sendto", "netlink", sendto(sock, text, sizeof text, MSG_DONTWAIT, (void *)&address, sizeof address));
}

static void hears_uevents(void)
{
	hears(NETLINK_KOBJECT_UEVENT, UEVENT_OF_UDEV, 0);
}

static void send_uevent(void)
{
	say_to(NETLINK_KOBJECT_UEVENT, UEVENT_OF_UDEV, 0);
}

static void hears_group(void)
{
	hears(NETLINK_USERSOCK, 1 << (GROUP_OF_USERS - 1), 0);
}

static void send_to_group(void)
{
	say_to(NETLINK_USERSOCK, 1 << (GROUP_OF_USERS - 1), 0);
}

static void hears_port(void)
{
	hears(NETLINK_USERSOCK, 0, number(secret) | 1 << 30);
}

static void send_to_port(void)
{
	say_to(NETLINK_USERSOCK, 0, (uint32_t)strtoul(given("port", 0), NULL, 10));
}

static void add(uint16_t type, const void *data, size_t size)
{
	struct rtattr *attribute = (void *)((char *)&request + NLMSG_ALIGN(request.header.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = (uint16_t)RTA_LENGTH(size);
	memcpy(RTA_DATA(attribute), data, size);
	request.header.nlmsg_len = NLMSG_ALIGN(request.header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
}

static uint32_t nest(uint16_t type)
{
	uint32_t at = NLMSG_ALIGN(request.header.nlmsg_len);

	add(type, "", 0);
	return at;
}

static void end_nest(uint32_t at)
{
	((struct rtattr *)((char *)&request + at))->rta_len = (uint16_t)(request.header.nlmsg_len - at);
}

static void *begin(uint16_t type, int flags, size_t size)
{
	memset(&request, 0, sizeof request);
	request.header = (struct nlmsghdr){ .nlmsg_type = type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags) };
	request.header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
	return NLMSG_DATA(&request.header);
}

/* Send the request; 0, or -1 with the errno that the kernel answers. */
static long ask(int sock)
{
	struct { struct nlmsghdr header; struct nlmsgerr error; char rest[4096]; } answer;

	if (send(sock, &request, request.header.nlmsg_len, 0) < 0 || recv(sock, &answer, sizeof answer, 0) < 0)
		return -1;
	errno = -answer.error.error;
	return answer.error.error ? -1 : 0;
}

static void hears_addresses(void)
{
	int sock = netlink(NETLINK_ROUTE, RTMGRP_IPV4_IFADDR, 0);
	char data[4096], text[16];
	long got;

	ready();
	while ((got = recv(sock, data, sizeof data, MSG_DONTWAIT)) > 0)
		for (long i = 0; i + 4 <= got; i += 4) {
			uint32_t word = ntohl(*(uint32_t *)(data + i));

			if (word >> 24 == 127)
				received(text, sprintf(text, "%06x", word & 0xffffff));
		}
}

static long address(uint16_t type)
{
	uint32_t number_of_it = htonl(127u << 24 | (number(message) & 0xffffff));
	struct ifaddrmsg *body = begin(type, NLM_F_ACK | (type == RTM_NEWADDR ? NLM_F_CREATE : 0), sizeof *body);
	int sock = netlink(NETLINK_ROUTE, 0, 0);

	*body = (struct ifaddrmsg){ .ifa_family = AF_INET, .ifa_prefixlen = 32, .ifa_index = if_nametoindex("lo") };
	add(IFA_LOCAL, &number_of_it, 4);
	return ask(sock);
}

static void add_address(void)
{
	hint("message", "%s", message + 2);
	tried("RTM_NEWADDR", "lo", address(RTM_NEWADDR));
	held();
	address(RTM_DELADDR);
}

/* A pair of links, one of them for the network namespace of another process. */
static void watches_links(void)
{
	struct if_nameindex *link;

	ready();
	for (link = if_nameindex(); link->if_index; link++)
		received(link->if_name, (long)strlen(link->if_name));
}

static long push(const char *pid)
{
	struct ifinfomsg *body = begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, sizeof *body), peer = { 0 };
	int sock = netlink(NETLINK_ROUTE, 0, 0);
	uint32_t number_of_it = (uint32_t)atoi(pid), info, data, other;
	char name[16];

	add(IFLA_IFNAME, name, (size_t)snprintf(name, sizeof name, "b%s", message) + 1);
	info = nest(IFLA_LINKINFO);
	add(IFLA_INFO_KIND, "veth", 4);
	data = nest(IFLA_INFO_DATA);
	other = nest(VETH_INFO_PEER);
	memcpy((char *)&request + request.header.nlmsg_len, &peer, sizeof peer);
	request.header.nlmsg_len += sizeof peer;
	name[0] = 'p';
	add(IFLA_IFNAME, name, strlen(name) + 1);
	add(IFLA_NET_NS_PID, &number_of_it, 4);
	end_nest(other);
	end_nest(data);
	end_nest(info);
	return ask(sock);
}

static void push_link(void)
{
	struct ifinfomsg *body;
	char name[16];

	for each("pid", pid)
		tried("RTM_NEWLINK", pid, push(pid));
	held();
	snprintf(name, sizeof name, "b%s", message);
	body = begin(RTM_DELLINK, NLM_F_ACK, sizeof *body);
	body->ifi_index = (int)if_nametoindex(name);
	if (body->ifi_index)
		ask(netlink(NETLINK_ROUTE, 0, 0));
}

static void dump(const void *body, size_t size)
{
	int sock = netlink(NETLINK_SOCK_DIAG, 0, 0);
	static char data[1 << 16];
	long got;

	memcpy(begin(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, size), body, size);
	tried("sock_diag", "dump", send(sock, &request, request.header.nlmsg_len, 0));
	while ((got = recv(sock, data, sizeof data, 0)) > 0) {
		struct nlmsghdr *one = (void *)data;

		search(data, got);
		for (; NLMSG_OK(one, got); one = NLMSG_NEXT(one, got)) {
			struct inet_diag_msg *found = NLMSG_DATA(one);
			char text[16];

			if (one->nlmsg_type == NLMSG_DONE || one->nlmsg_type == NLMSG_ERROR)
				return;
			if (*(const uint8_t *)body == AF_INET)
				learned(text, sprintf(text, "%06x", ntohl(found->id.idiag_src[0]) & 0xffffff));
		}
	}
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
	struct unix_diag_req body = { .sdiag_family = AF_UNIX, .udiag_states = ~0u, .udiag_show = UDIAG_SHOW_NAME };

	dump(&body, sizeof body);
}

static void has_tcp_socket(void)
{
	struct sockaddr_in name = { .sin_family = AF_INET };
	int sock = (int)must("socket", socket(AF_INET, SOCK_STREAM, 0));

	name.sin_addr.s_addr = htonl(127u << 24 | (number(secret) & 0xffffff));
	must("bind", bind(sock, (void *)&name, sizeof name));
	must("listen", listen(sock, 1));
	hint("secret", "%s", secret + 2);
	ready();
}

static void list_tcp_sockets(void)
{
	struct inet_diag_req_v2 body = { .sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u };

	dump(&body, sizeof body);
}

static void renames_itself(void)
{
	ready();
	prctl(PR_SET_NAME, marker);
}

/* Events of all processes of the machine: their ids and names. */
static void hear_of_processes(void)
{
	struct cn_msg body = { .id = { CN_IDX_PROC, CN_VAL_PROC }, .len = 4 };
	int sock = netlink(NETLINK_CONNECTOR, CN_IDX_PROC, 0);
	char *at = begin(NLMSG_DONE, 0, sizeof body + 4), data[4096];
	enum proc_cn_mcast_op listen_to = PROC_CN_MCAST_LISTEN;
	long got;

	memcpy(at, &body, sizeof body);
	memcpy(at + sizeof body, &listen_to, 4);
	tried("PROC_CN_MCAST_LISTEN", "connector", send(sock, &request, request.header.nlmsg_len, 0));
	held();
	while ((got = recv(sock, data, sizeof data, MSG_DONTWAIT)) > 0)
		search(data, got);
}

const struct channel netlink_sockets[] = {
	{ "netlink-uevent", hears_uevents, send_uevent },
	{ "netlink-multicast", hears_group, send_to_group },
	{ "netlink-unicast", hears_port, send_to_port },
	{ "netlink-route-events", hears_addresses, add_address },
	{ "netlink-link-by-pid", watches_links, push_link },
	{ "netlink-unix_diag", has_unix_socket, list_unix_sockets },
	{ "netlink-inet_diag", has_tcp_socket, list_tcp_sockets },
	{ "netlink-proc-events", renames_itself, hear_of_processes },
	{ 0 },
};
