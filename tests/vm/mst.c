/* mst BRIDGE on               gives a bridge that has no VLANs a spanning tree for each group of VLANs (IEEE 802.1Q, MST)
 * mst BRIDGE vlan VLAN TREE   puts a VLAN of the bridge into the group of a tree
 * mst PORT TREE STATE         sets a port's state (BR_STATE_*) in a tree; that in tree 0 is the port's own
 *
 * The iproute2 of Debian 12 cannot. */
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static char buffer[1024];
static struct nlmsghdr *const message = (struct nlmsghdr *)buffer;

static void begin(int type, const void *header, size_t length)
{
    message->nlmsg_type = type;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    message->nlmsg_len = NLMSG_LENGTH(length);
    memcpy(NLMSG_DATA(message), header, length);
}

static struct rtattr *put(int type, const void *value, size_t length)
{
    struct rtattr *attribute = (struct rtattr *)(buffer + NLMSG_ALIGN(message->nlmsg_len));

    attribute->rta_type = type;
    attribute->rta_len = RTA_LENGTH(length);
    if (length)
        memcpy(RTA_DATA(attribute), value, length);
    message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + RTA_ALIGN(attribute->rta_len);
    return attribute;
}

static struct rtattr *nest(int type)
{
    return put(type | NLA_F_NESTED, NULL, 0);
}

static void end(struct rtattr *nested)
{
    nested->rta_len = buffer + message->nlmsg_len - (char *)nested;
}

static void enable(int index)
{
    struct ifinfomsg header = {.ifi_index = index};
    struct br_boolopt_multi options = {1 << BR_BOOLOPT_MST_ENABLE, 1 << BR_BOOLOPT_MST_ENABLE};

    begin(RTM_NEWLINK, &header, sizeof header);
    struct rtattr *info = nest(IFLA_LINKINFO);
    put(IFLA_INFO_KIND, "bridge", sizeof "bridge");
    struct rtattr *data = nest(IFLA_INFO_DATA);
    put(IFLA_BR_MULTI_BOOLOPT, &options, sizeof options);
    end(data);
    end(info);
}

static void put_into_tree(int index, unsigned short vlan, unsigned short tree)
{
    struct br_vlan_msg header = {.family = AF_BRIDGE, .ifindex = index};

    begin(RTM_NEWVLAN, &header, sizeof header);
    struct rtattr *options = nest(BRIDGE_VLANDB_GLOBAL_OPTIONS);
    put(BRIDGE_VLANDB_GOPTS_ID, &vlan, sizeof vlan);
    put(BRIDGE_VLANDB_GOPTS_MSTI, &tree, sizeof tree);
    end(options);
}

static void set_state(int index, unsigned short tree, unsigned char state)
{
    struct ifinfomsg header = {.ifi_family = AF_BRIDGE, .ifi_index = index};

    begin(RTM_SETLINK, &header, sizeof header);
    struct rtattr *spec = nest(IFLA_AF_SPEC), *states = nest(IFLA_BRIDGE_MST), *entry = nest(IFLA_BRIDGE_MST_ENTRY);
    put(IFLA_BRIDGE_MST_ENTRY_MSTI, &tree, sizeof tree);
    put(IFLA_BRIDGE_MST_ENTRY_STATE, &state, sizeof state);
    end(entry);
    end(states);
    end(spec);
}

int main(int count, char **words)
{
    int index = count > 2 ? (int)if_nametoindex(words[1]) : 0;
    int kernel = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

    if (count == 3)
        enable(index);
    else if (count == 4)
        set_state(index, atoi(words[2]), atoi(words[3]));
    else if (count == 5)
        put_into_tree(index, atoi(words[3]), atoi(words[4]));
    if (index == 0 || send(kernel, buffer, message->nlmsg_len, 0) < 0 || recv(kernel, buffer, sizeof buffer, 0) < 0)
        return 2;
    struct nlmsgerr *answer = NLMSG_DATA(message);
    if (answer->error)
        fprintf(stderr, "mst: %s\n", strerror(-answer->error));
    return answer->error != 0;
}
