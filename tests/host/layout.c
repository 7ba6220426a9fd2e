/*
 * The sizes and offsets by which src/host/freebsd reads
 * what a FreeBSD kernel writes, asserted with FreeBSD's own headers.
 * scripts/freebsd-build.sh compiles this for each target; it makes no code.
 */
#include <sys/param.h>
#include <sys/file.h>
#include <sys/jail.h>
#include <sys/socket.h>
#include <sys/socketvar.h>
#include <sys/sockio.h>
#include <sys/sysctl.h>
#include <sys/user.h>
#include <net/if.h>
#include <net/if_dl.h>
#include <net/route.h>
#include <netinet/in.h>
#include <netinet/in_pcb.h>
#include <netinet/sctp.h>
#include <netinet/sctp_uio.h>
#include <netinet/tcp.h>
#include <netinet/tcp_fsm.h>
#include <netinet/tcp_var.h>
#include <stddef.h>

#define IS(what, number) _Static_assert((what) == (number), #what " is not " #number)
#define AT(type, member, offset) IS(offsetof(type, member), offset)
#define SIZE(type, size) IS(sizeof(type), size)

IS(AF_INET, 2);
IS(AF_LINK, 18);
IS(AF_INET6, 28);
AT(struct sockaddr_in, sin_addr, 4);
AT(struct sockaddr_in6, sin6_addr, 8);
AT(struct sockaddr_dl, sdl_nlen, 5);
AT(struct sockaddr_dl, sdl_data, 8);

/* rtsock */
IS(RTM_VERSION, 5);
IS(RTM_GET, 0x4);
IS(RTM_NEWADDR, 0xc);
IS(RTM_IFINFO, 0xe);
IS(RTF_UP, 0x1);
IS(RTF_HOST, 0x4);
IS(RTF_REJECT, 0x8);
IS(RTF_BLACKHOLE, 0x1000);
IS(RTAX_DST, 0);
IS(RTAX_NETMASK, 2);
IS(RTAX_IFP, 4);
IS(RTAX_IFA, 5);
IS(RTAX_MAX, 8);
SIZE(struct rt_msghdr, 152);
AT(struct rt_msghdr, rtm_version, 2);
AT(struct rt_msghdr, rtm_type, 3);
AT(struct rt_msghdr, rtm_flags, 8);
AT(struct rt_msghdr, rtm_addrs, 12);
AT(struct if_msghdrl, ifm_addrs, 4);
AT(struct if_msghdrl, ifm_flags, 8);
AT(struct if_msghdrl, ifm_index, 12);
AT(struct if_msghdrl, ifm_len, 16);
AT(struct ifa_msghdrl, ifam_addrs, 4);
AT(struct ifa_msghdrl, ifam_index, 12);
AT(struct ifa_msghdrl, ifam_len, 16);
IS(IFF_UP, 0x1);
IS(IFF_LOOPBACK, 0x8);
IS(NET_RT_DUMP, 1);
IS(NET_RT_IFLISTL, 5);

/* pcblist */
SIZE(struct xinpgen, 64);
AT(struct xinpgen, xig_len, 0);
SIZE(struct xinpcb, 400);
AT(struct xinpcb, xi_len, 0);
AT(struct xinpcb, inp_inc.inc_ie, 252);
AT(struct xinpcb, inp_inc.inc_ie.ie_fport, 252);
AT(struct xinpcb, inp_inc.inc_ie.ie_lport, 254);
AT(struct xinpcb, inp_inc.inc_ie.ie6_laddr, 272);
AT(struct xinpcb, inp_inc.inc_ie.ie_laddr, 284);
AT(struct xinpcb, inp_flags, 356);
IS(INP_ANONPORT, 0x40);
AT(struct xinpcb, inp_vflag, 392);
IS(INP_IPV4, 0x1);
IS(INP_IPV6, 0x2);
SIZE(struct xtcpcb, 744);
AT(struct xtcpcb, xt_len, 0);
AT(struct xtcpcb, xt_inp, 8);
AT(struct xtcpcb, t_state, 568);
IS(TCPS_LISTEN, 1);

/* net.inet.sctp.assoclist */
SIZE(struct xsctp_inpcb, 160);
AT(struct xsctp_inpcb, last, 0);
AT(struct xsctp_inpcb, flags, 4);
AT(struct xsctp_inpcb, local_port, 32);
SIZE(struct xsctp_laddr, 168);
AT(struct xsctp_laddr, address, 0);
AT(struct xsctp_laddr, last, 28);
SIZE(struct xsctp_tcb, 264);
AT(struct xsctp_tcb, last, 28);
SIZE(struct xsctp_raddr, 204);
AT(struct xsctp_raddr, last, 28);
IS(SCTP_PCB_FLAGS_BOUNDALL, 0x4);
IS(SCTP_PCB_FLAGS_ACCEPTING, 0x8);

/* the rest */
SIZE(struct timeval, 16);
AT(struct timeval, tv_usec, 8);
SIZE(struct ifgroupreq, 0x28);
AT(struct ifgroupreq, ifgr_len, 16);
AT(struct ifgroupreq, ifgr_groups, 24);
SIZE(struct ifg_req, IFNAMSIZ);
IS(SSTOP, 4);
IS(SIOCGIFGROUP, 0xc0286988);
IS(JAIL_DYING, 0x08);
IS(JAIL_SYS_NEW, 1);
IS(JAIL_SYS_INHERIT, 2);

/* open files and processes */
AT(struct xinpcb, xi_socket.xso_so, 16);
SIZE(struct xfile, 128);
AT(struct xfile, xf_size, 0);
AT(struct xfile, xf_pid, 8);
AT(struct xfile, xf_data, 56);
SIZE(struct kinfo_proc, 1088);
AT(struct kinfo_proc, ki_structsize, 0);
AT(struct kinfo_proc, ki_stat, 388);
AT(struct kinfo_proc, ki_fibnum, 584);
AT(struct kinfo_proc, ki_jid, 592);
