/*
 * mount.nfs for the test lab: NFS mounts on a kernel that has no NFS client.
 *
 *     mount.nfs server:/export/path /target [-rfnsvw] [-o options]
 *
 * It takes the place of nfs-utils' program of that name in the lab's machines, and nowhere else, so that mount(8)
 * and the kubelet call it as they call the real one. On one side it speaks NFSv3 (AUTH_SYS, TCP) with a real
 * server, on the other FUSE. One process per mount, one thread, asynchronous: each FUSE request becomes one or a
 * few NFSv3 calls that carry the caller's uid, gid and groups. The parent exits with 0 once the mount is there;
 * umount(8) ends the process.
 *
 * As with a "hard" mount it reconnects and asks again for ever, unless "soft" is given. Writes are unstable until
 * close or fsync commits them; what a restarted server may have lost is written again.
 *
 * Caches: attributes and names 1 s (actimeo=), absent names never, data close-to-open (pages are dropped at open
 * when the file has changed). A file that is unlinked or renamed over while open here becomes .nfsXXXX until it
 * is closed, as with the kernel's client.
 *
 * Limits: NFSv3 whatever version is asked for; no extended attributes, no ACLs, sec=sys only; locks hold among the
 * processes of one machine, not between machines; a file opened with O_APPEND cannot be mapped shared; the type
 * of the mount is fuse.nfs, and it is always nosuid and nodev. Options that it does not know are ignored.
 */
#define FUSE_USE_VERSION 34
#define _GNU_SOURCE
#include <fuse_lowlevel.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define FHMAX 64
#define MAXGROUPS 16
#define UNSTABLE_MAX (16u << 20) /* bytes of a file kept until a COMMIT */
#define NFS_PROG 100003
#define MNT_PROG 100005
#define PMAP_PROG 100000

enum {
    P_NULL,
    P_GETATTR,
    P_SETATTR,
    P_LOOKUP,
    P_ACCESS,
    P_READLINK,
    P_READ,
    P_WRITE,
    P_CREATE,
    P_MKDIR,
    P_SYMLINK,
    P_MKNOD,
    P_REMOVE,
    P_RMDIR,
    P_RENAME,
    P_LINK,
    P_READDIR,
    P_READDIRPLUS,
    P_FSSTAT,
    P_FSINFO,
    P_PATHCONF,
    P_COMMIT
};

struct fh {
    uint32_t len;
    unsigned char d[FHMAX];
};

struct cred {
    uint32_t uid, gid, ng, g[MAXGROUPS];
};

struct node { /* one per file handle the kernel knows */
    struct node *hnext;
    struct fh fh;
    uint64_t nlookup;
    uint64_t refs; /* open files and calls in flight */
    uint32_t nopen;
    bool have; /* ver below is valid */
    struct timespec mtime, ctime;
    off_t size;
    struct call *unstable; /* answered writes that no COMMIT has covered yet */
    size_t unstable_bytes;
    bool committing;
    struct call *waiting; /* for the COMMIT under way to end, to begin another */
    char *silly;
    struct node *sillydir;
    struct cred sillycred;
};

struct ofile {
    struct cred cred;
    bool append;
};

struct dent {
    char *name;
    uint64_t cookie, fileid;
    bool have_fh, have_attr;
    struct fh fh;
    struct stat st;
};

struct odir {
    struct cred cred;
    char verf[8];
    struct dent *e;
    int n, cap;
    uint64_t start;
    bool eof;
};

/* ---------------------------------------------------------------- XDR --- */
struct xdr {
    const unsigned char *p, *end;
    bool bad;
};

static uint32_t g32(struct xdr *x) {
    uint32_t v;
    if (x->end - x->p < 4) {
        x->bad = true;
        return 0;
    }
    memcpy(&v, x->p, 4);
    x->p += 4;
    return ntohl(v);
}

static uint64_t g64(struct xdr *x) {
    uint64_t h = g32(x);
    return h << 32 | g32(x);
}

static const void *gopaque(struct xdr *x, uint32_t *len) {
    const void *r;
    *len = g32(x);
    if (x->bad || (uint64_t)(x->end - x->p) < (((uint64_t)*len + 3) & ~3ULL)) {
        x->bad = true;
        *len = 0;
        return NULL;
    }
    r = x->p;
    x->p += (*len + 3) & ~3U;
    return r;
}

static void gfixed(struct xdr *x, void *to, size_t n) {
    if ((size_t)(x->end - x->p) < n) {
        x->bad = true;
        return;
    }
    memcpy(to, x->p, n);
    x->p += n;
}

static void gfh(struct xdr *x, struct fh *f) {
    uint32_t n;
    const void *d = gopaque(x, &n);
    if (x->bad || n > FHMAX) {
        x->bad = true;
        f->len = 0;
        return;
    }
    f->len = n;
    memcpy(f->d, d, n);
}

static void gtime(struct xdr *x, struct timespec *t) {
    t->tv_sec = g32(x);
    t->tv_nsec = g32(x);
}

static void gattr(struct xdr *x, struct stat *st) {
    static const mode_t types[] = {0, S_IFREG, S_IFDIR, S_IFBLK, S_IFCHR, S_IFLNK, S_IFSOCK, S_IFIFO};
    uint32_t t = g32(x), maj, min;
    memset(st, 0, sizeof *st);
    st->st_mode = (t < 8 ? types[t] : 0) | (g32(x) & 07777);
    st->st_nlink = g32(x);
    st->st_uid = g32(x);
    st->st_gid = g32(x);
    st->st_size = g64(x);
    st->st_blocks = (g64(x) + 511) / 512;
    maj = g32(x);
    min = g32(x);
    st->st_rdev = makedev(maj, min);
    g64(x);
    st->st_ino = g64(x);
    gtime(x, &st->st_atim);
    gtime(x, &st->st_mtim);
    gtime(x, &st->st_ctim);
    st->st_blksize = 65536;
}

static bool gpostattr(struct xdr *x, struct stat *st) {
    if (!g32(x))
        return false;
    gattr(x, st);
    return !x->bad;
}

static bool gwcc(struct xdr *x, struct stat *st) {
    if (g32(x)) {
        g64(x);
        g64(x);
        g64(x);
    }
    return gpostattr(x, st);
}

/* ---------------------------------------------------------------- RPC --- */
struct conn {
    struct sockaddr_storage ss;
    socklen_t sslen;
    uint32_t prog, vers;
    int fd;
    bool connecting;
    uint64_t retry_at, backoff, last_rx;
    struct call *sq, **sqtail;     /* to send */
    struct call *wait, **waittail; /* sent, in order */
    unsigned char *rb;
    size_t rcap, rlen;
};

struct call {
    struct call *next;
    struct conn *c;
    uint32_t xid, proc;
    unsigned char *o;
    size_t len, cap, sent;
    uint64_t born, not_before;
    void (*cb)(struct call *, struct xdr *, int err);
    /* context of the FUSE request */
    fuse_req_t req;
    struct node *n, *n2;
    struct fuse_file_info fi;
    struct ofile *of;
    struct odir *od;
    char *name, *name2;
    struct cred cred;
    struct stat st;
    int to_set; /* FUSE_SET_ATTR_* of st */
    struct fh fh;
    size_t size, done;
    off_t off;
    char *buf;
    bool plus;
    /* a WRITE kept to be sent again; a COMMIT and the writes that it covers */
    size_t stable_at;
    char verf[8];
    struct call *parent, *batch;
    unsigned pending;
    int err;
    void (*then)(struct call *, int err);
};

static struct conn nfs;
static struct fuse_session *se;
static struct node *root, *ntab[65536];
static unsigned long nopenfiles;
static uint32_t next_xid;
static uint32_t rtmax = 65536, wtmax = 65536;
static char machine[64] = "localhost";

static struct {
    double ac;
    bool soft, ro, resvport;
    unsigned timeo, retrans, port, mountport;
    char *fuseopts;
} opt = {.ac = 1.0, .timeo = 600, .retrans = 2, .resvport = true};
static struct call *delayed;
static bool ready;
static int ready_fd = -1;

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}

static void room(struct call *k, size_t n) {
    if (k->len + n <= k->cap)
        return;
    k->cap = (k->len + n) * 2;
    k->o = realloc(k->o, k->cap);
    if (!k->o)
        abort();
}

static void p32(struct call *k, uint32_t v) {
    room(k, 4);
    v = htonl(v);
    memcpy(k->o + k->len, &v, 4);
    k->len += 4;
}

static void p64(struct call *k, uint64_t v) {
    p32(k, v >> 32);
    p32(k, v);
}

static void pfixed(struct call *k, const void *d, uint32_t n) {
    uint32_t pad = -n & 3;
    room(k, n + pad);
    memcpy(k->o + k->len, d, n);
    memset(k->o + k->len + n, 0, pad);
    k->len += n + pad;
}

static void popaque(struct call *k, const void *d, uint32_t n) {
    p32(k, n);
    pfixed(k, d, n);
}

static void pstr(struct call *k, const char *s) {
    popaque(k, s, strlen(s));
}

static void pfh(struct call *k, const struct fh *f) {
    popaque(k, f->d, f->len);
}

static void p_header(struct call *k, uint32_t prog, uint32_t vers, uint32_t proc, const struct cred *cr) {
    size_t at;
    uint32_t i, n;
    k->len = 0;
    p32(k, 0); /* record mark */
    k->xid = next_xid++;
    k->proc = proc;
    p32(k, k->xid);
    p32(k, 0);
    p32(k, 2);
    p32(k, prog);
    p32(k, vers);
    p32(k, proc);
    if (cr) {
        p32(k, 1);
        at = k->len;
        p32(k, 0);
        p32(k, 0);
        pstr(k, machine);
        p32(k, cr->uid);
        p32(k, cr->gid);
        p32(k, cr->ng);
        for (i = 0; i < cr->ng; i++)
            p32(k, cr->g[i]);
        n = htonl(k->len - at - 4);
        memcpy(k->o + at, &n, 4);
    } else {
        p32(k, 0);
        p32(k, 0);
    }
    p32(k, 0);
    p32(k, 0); /* verifier */
}

static struct call *call_new(struct conn *c, uint32_t proc, const struct cred *cr,
                             void (*cb)(struct call *, struct xdr *, int)) {
    struct call *k = calloc(1, sizeof *k);
    if (!k)
        abort();
    k->c = c;
    k->cb = cb;
    k->cred = *cr;
    k->cap = 512;
    k->o = malloc(k->cap);
    p_header(k, c->prog, c->vers, proc, cr);
    return k;
}

/* start the next RPC on the same FUSE context */
static void call_again(struct call *k, uint32_t proc, void (*cb)(struct call *, struct xdr *, int)) {
    k->cb = cb;
    k->sent = 0;
    p_header(k, k->c->prog, k->c->vers, proc, &k->cred);
}

static void node_put(struct node *n);

static void call_free(struct call *k) {
    if (k->n) {
        k->n->refs--;
        node_put(k->n);
    }
    if (k->n2) {
        k->n2->refs--;
        node_put(k->n2);
    }
    free(k->name);
    free(k->name2);
    free(k->buf);
    free(k->o);
    free(k);
}

static void finish_mark(struct call *k) {
    uint32_t m = htonl((k->len - 4) | 0x80000000u);
    memcpy(k->o, &m, 4);
}

static void call_send(struct call *k) {
    finish_mark(k);
    k->next = NULL;
    k->sent = 0;
    k->born = now_ms();
    *k->c->sqtail = k;
    k->c->sqtail = &k->next;
}

static void conn_init(struct conn *c) {
    c->fd = -1;
    c->sqtail = &c->sq;
    c->waittail = &c->wait;
    c->backoff = 100;
}

static int bind_resv(int fd, int family) {
    static int start;
    int i;
    if (!start)
        start = 700 + (getpid() * 7) % 300;
    for (i = 0; i < 360; i++) {
        int port = 665 + (start - 665 + i) % 358;
        struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port)};
        int rc = family == AF_INET6 ? bind(fd, (void *)&a6, sizeof a6) : bind(fd, (void *)&a4, sizeof a4);
        if (!rc) {
            start = port + 1;
            return 0;
        }
        if (errno != EADDRINUSE)
            return -1;
    }
    return -1;
}

static void conn_sockopts(int fd) {
    int one = 1, v;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    v = 20;
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &v, sizeof v);
    v = 10;
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &v, sizeof v);
    v = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &v, sizeof v);
    v = 30000;
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &v, sizeof v);
}

static void conn_drop(struct conn *c, const char *why) {
    struct call *k;
    if (c->fd >= 0)
        close(c->fd);
    if (!c->connecting || c->backoff >= 2000)
        syslog(LOG_WARNING, "connection lost (%s), retrying", why);
    c->fd = -1;
    c->connecting = false;
    c->rlen = 0;
    c->retry_at = now_ms() + c->backoff;
    if (c->backoff < 2000)
        c->backoff *= 2;
    /* everything sent and unanswered goes back, in order, same xid */
    if (c->wait) {
        *c->waittail = c->sq;
        if (!c->sq)
            c->sqtail = c->waittail;
        c->sq = c->wait;
        c->wait = NULL;
        c->waittail = &c->wait;
    }
    for (k = c->sq; k; k = k->next)
        k->sent = 0;
}

static void conn_connect(struct conn *c) {
    int fd = socket(c->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        conn_drop(c, strerror(errno));
        return;
    }
    if (opt.resvport)
        bind_resv(fd, c->ss.ss_family);
    conn_sockopts(fd);
    c->fd = fd;
    c->connecting = true;
    c->rlen = 0;
    if (connect(fd, (void *)&c->ss, c->sslen) && errno != EINPROGRESS)
        conn_drop(c, strerror(errno));
}

static void conn_flush(struct conn *c) {
    struct call *k;
    if (c->fd < 0) {
        if (c->sq && now_ms() >= c->retry_at)
            conn_connect(c);
        return;
    }
    if (c->connecting)
        return;
    while ((k = c->sq)) {
        ssize_t r = send(c->fd, k->o + k->sent, k->len - k->sent, MSG_NOSIGNAL);
        if (r < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return;
            conn_drop(c, strerror(errno));
            return;
        }
        k->sent += r;
        if (k->sent < k->len)
            continue;
        c->sq = k->next;
        if (!c->sq)
            c->sqtail = &c->sq;
        k->next = NULL;
        *c->waittail = k;
        c->waittail = &k->next;
        if (c->last_rx == 0 || !c->wait->next)
            c->last_rx = now_ms();
    }
}

static int nfs_errno(uint32_t s) {
    switch (s) {
    case 0:
        return 0;
    case 1:
        return EPERM;
    case 2:
        return ENOENT;
    case 5:
        return EIO;
    case 6:
        return ENXIO;
    case 13:
        return EACCES;
    case 17:
        return EEXIST;
    case 18:
        return EXDEV;
    case 19:
        return ENODEV;
    case 20:
        return ENOTDIR;
    case 21:
        return EISDIR;
    case 22:
        return EINVAL;
    case 27:
        return EFBIG;
    case 28:
        return ENOSPC;
    case 30:
        return EROFS;
    case 31:
        return EMLINK;
    case 63:
        return ENAMETOOLONG;
    case 66:
        return ENOTEMPTY;
    case 69:
        return EDQUOT;
    case 70:
        return ESTALE;
    case 71:
        return EREMOTE;
    case 10001:
        return EBADF;
    case 10004:
        return EOPNOTSUPP;
    case 10005:
        return EINVAL;
    case 10007:
        return EINVAL;
    default:
        return EIO;
    }
}

static void reply_in(struct conn *c, const unsigned char *d, size_t n) {
    struct xdr x = {d, d + n, false};
    struct call **pp, *k;
    uint32_t xid = g32(&x), len, stat;
    int err = 0;
    for (pp = &c->wait; (k = *pp); pp = &k->next)
        if (k->xid == xid)
            break;
    if (!k)
        return;
    *pp = k->next;
    if (c->waittail == &k->next)
        c->waittail = pp;
    k->next = NULL;
    if (g32(&x) != 1)
        err = EIO;
    if (!err && g32(&x) != 0)
        err = EACCES; /* MSG_DENIED */
    if (!err) {
        g32(&x);
        gopaque(&x, &len);
        if (g32(&x) != 0)
            err = EOPNOTSUPP;
    }
    if (!err && c == &nfs && k->proc != P_NULL) {
        stat = g32(&x);
        if (stat == 10008) { /* JUKEBOX: ask again */
            k->xid = next_xid++;
            uint32_t nx = htonl(k->xid);
            memcpy(k->o + 4, &nx, 4);
            k->not_before = now_ms() + 500;
            k->next = delayed;
            delayed = k;
            return;
        }
        err = nfs_errno(stat);
    }
    if (x.bad)
        err = EIO;
    k->cb(k, err == EIO && x.bad ? NULL : &x, err);
}

static void conn_read(struct conn *c) {
    for (;;) {
        size_t want = 4, have;
        ssize_t r;
        if (c->rlen >= 4) {
            uint32_t m;
            memcpy(&m, c->rb, 4);
            m = ntohl(m);
            if (!(m & 0x80000000u)) {
                conn_drop(c, "fragmented reply");
                return;
            }
            want = 4 + (m & 0x7fffffff);
            if (want > (16u << 20)) {
                conn_drop(c, "huge reply");
                return;
            }
        }
        if (c->rlen >= want && want > 4) {
            reply_in(c, c->rb + 4, want - 4);
            have = c->rlen - want;
            memmove(c->rb, c->rb + want, have);
            c->rlen = have;
            continue;
        }
        if (c->rcap < want + 65536) {
            c->rcap = want + 65536;
            c->rb = realloc(c->rb, c->rcap);
        }
        r = recv(c->fd, c->rb + c->rlen, want > 4 ? want - c->rlen : c->rcap - c->rlen, 0);
        if (r < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return;
            conn_drop(c, strerror(errno));
            return;
        }
        if (r == 0) {
            conn_drop(c, "closed by server");
            return;
        }
        c->rlen += r;
        c->last_rx = now_ms();
        c->backoff = 100;
    }
}

static void conn_tick(struct conn *c) {
    uint64_t now = now_ms();
    if (c->fd >= 0 && c->wait && now - c->last_rx > opt.timeo * 100ULL && now - c->wait->born > opt.timeo * 100ULL)
        conn_drop(c, "no answer");
    if (opt.soft && c->fd < 0)
        while (c->sq && now - c->sq->born > opt.timeo * 100ULL * (opt.retrans + 1)) {
            struct call *k = c->sq;
            c->sq = k->next;
            if (!c->sq)
                c->sqtail = &c->sq;
            k->next = NULL;
            k->cb(k, NULL, EIO);
        }
}

/* -------------------------------------------------------------- nodes --- */
static uint32_t fhhash(const struct fh *f) {
    uint32_t h = 2166136261u, i;
    for (i = 0; i < f->len; i++)
        h = (h ^ f->d[i]) * 16777619u;
    return (h ^ h >> 16) & 65535;
}

static struct node *node_find(const struct fh *f) {
    struct node *n;
    for (n = ntab[fhhash(f)]; n; n = n->hnext)
        if (n->fh.len == f->len && !memcmp(n->fh.d, f->d, f->len))
            return n;
    return NULL;
}

static struct node *node_get(const struct fh *f) {
    struct node *n = node_find(f);
    uint32_t h;
    if (n)
        return n;
    n = calloc(1, sizeof *n);
    if (!n)
        abort();
    n->fh = *f;
    h = fhhash(f);
    n->hnext = ntab[h];
    ntab[h] = n;
    return n;
}

static void node_put(struct node *n) {
    struct node **pp;
    if (n->nlookup || n->refs || n == root)
        return;
    for (pp = &ntab[fhhash(&n->fh)]; *pp != n; pp = &(*pp)->hnext)
        ;
    *pp = n->hnext;
    free(n->silly);
    free(n);
}

static struct node *N(fuse_ino_t i) {
    return i == FUSE_ROOT_ID ? root : (struct node *)i;
}

static fuse_ino_t INO(struct node *n) {
    return n == root ? FUSE_ROOT_ID : (fuse_ino_t)n;
}

static void hold(struct call *k, fuse_ino_t a, fuse_ino_t b) {
    k->n = N(a);
    k->n->refs++;
    if (b) {
        k->n2 = N(b);
        k->n2->refs++;
    }
}

static bool node_changed(struct node *n, const struct stat *st) {
    return !n->have || n->size != st->st_size || n->mtime.tv_sec != st->st_mtim.tv_sec ||
           n->mtime.tv_nsec != st->st_mtim.tv_nsec;
}

static void node_attr(struct node *n, const struct stat *st) {
    n->have = true;
    n->mtime = st->st_mtim;
    n->ctime = st->st_ctim;
    n->size = st->st_size;
}

/* -------------------------------------------------------- credentials --- */
static void get_cred(fuse_req_t req, struct cred *cr) {
    static struct {
        pid_t pid;
        uint64_t at;
        struct cred c;
    } cache[64], *s;
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    char path[64], buf[4096], *p;
    uint64_t now = now_ms();
    int fd;
    ssize_t r;
    cr->uid = ctx->uid;
    cr->gid = ctx->gid;
    cr->ng = 0;
    if (ctx->pid <= 0)
        return;
    s = &cache[ctx->pid % 64];
    if (s->pid == ctx->pid && s->c.uid == cr->uid && s->c.gid == cr->gid && now - s->at < 1000) {
        *cr = s->c;
        return;
    }
    snprintf(path, sizeof path, "/proc/%d/status", ctx->pid);
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0) {
        r = read(fd, buf, sizeof buf - 1);
        close(fd);
        if (r > 0) {
            buf[r] = 0;
            if ((p = strstr(buf, "\nGroups:"))) {
                p += 8;
                while (cr->ng < MAXGROUPS) {
                    char *e;
                    unsigned long g;
                    while (*p == ' ' || *p == '\t')
                        p++;
                    if (*p < '0' || *p > '9')
                        break;
                    g = strtoul(p, &e, 10);
                    p = e;
                    if (g != cr->gid)
                        cr->g[cr->ng++] = g;
                }
            }
        }
    }
    s->pid = ctx->pid;
    s->at = now;
    s->c = *cr;
}

static struct call *newcall(fuse_req_t req, uint32_t proc, fuse_ino_t a, fuse_ino_t b,
                            void (*cb)(struct call *, struct xdr *, int)) {
    struct cred cr;
    struct call *k;
    get_cred(req, &cr);
    k = call_new(&nfs, proc, &cr, cb);
    k->req = req;
    hold(k, a, b);
    return k;
}

static void commit_then(struct call *k, void (*then)(struct call *, int err));

static void done_err(struct call *k, int err) {
    fuse_reply_err(k->req, err);
    call_free(k);
}

/* ------------------------------------------------------- entry helper --- */
static void cb_entry_attr(struct call *k, struct xdr *x, int err);

static void entry_ok(struct call *k) {
    struct node *n = node_get(&k->fh);
    struct fuse_entry_param e = {0};
    if (node_changed(n, &k->st)) {
        n->have = false;
    }
    n->nlookup++;
    if (!n->have && !S_ISREG(k->st.st_mode))
        node_attr(n, &k->st);
    e.ino = INO(n);
    e.generation = 1;
    e.attr = k->st;
    e.attr_timeout = e.entry_timeout = opt.ac;
    if (k->of) { /* create: open as well */
        k->fi.fh = (uintptr_t)k->of;
        k->fi.direct_io = k->of->append;
        k->fi.keep_cache = 0;
        n->refs++;
        n->nopen++;
        nopenfiles++;
        node_attr(n, &k->st);
        if (fuse_reply_create(k->req, &e, &k->fi) == -ENOENT) {
            n->nopen--;
            nopenfiles--;
            n->refs--;
            n->nlookup--;
            free(k->of);
            node_put(n);
        }
    } else if (fuse_reply_entry(k->req, &e) == -ENOENT) {
        n->nlookup--;
        node_put(n);
    }
    call_free(k);
}

static void cb_entry_attr(struct call *k, struct xdr *x, int err) {
    if (err) {
        free(k->of);
        done_err(k, err);
        return;
    }
    gattr(x, &k->st);
    if (x->bad) {
        free(k->of);
        done_err(k, EIO);
        return;
    }
    entry_ok(k);
}

static void entry_need_attr(struct call *k) {
    call_again(k, P_GETATTR, cb_entry_attr);
    pfh(k, &k->fh);
    call_send(k);
}

static void cb_lookup2(struct call *k, struct xdr *x, int err) {
    if (err) {
        free(k->of);
        done_err(k, err);
        return;
    }
    gfh(x, &k->fh);
    if (gpostattr(x, &k->st) && !x->bad)
        entry_ok(k);
    else if (k->fh.len)
        entry_need_attr(k);
    else {
        free(k->of);
        done_err(k, EIO);
    }
}

/* reply of CREATE, MKDIR, SYMLINK, MKNOD: post_op_fh, post_op_attr, wcc */
static void cb_newobj(struct call *k, struct xdr *x, int err) {
    bool hasfh = false, hasattr;
    if (err) {
        free(k->of);
        done_err(k, err);
        return;
    }
    if (g32(x)) {
        gfh(x, &k->fh);
        hasfh = !x->bad;
    }
    hasattr = gpostattr(x, &k->st);
    if (!hasfh) {
        call_again(k, P_LOOKUP, cb_lookup2);
        pfh(k, &k->n->fh);
        pstr(k, k->name);
        call_send(k);
    } else if (!hasattr)
        entry_need_attr(k);
    else
        entry_ok(k);
}

/* --------------------------------------------------------- operations --- */
static void op_init(void *u, struct fuse_conn_info *c) {
    (void)u;
    c->want &= ~(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_HANDLE_KILLPRIV);
    c->max_write = wtmax;
    c->max_read = rtmax;
    c->max_readahead = rtmax;
    c->max_background = 64;
    c->congestion_threshold = 48;
    ready = true;
}

static void op_lookup(fuse_req_t req, fuse_ino_t dir, const char *name) {
    struct call *k;
    if (strlen(name) > 255) {
        fuse_reply_err(req, ENAMETOOLONG);
        return;
    }
    k = newcall(req, P_LOOKUP, dir, 0, cb_lookup2);
    pfh(k, &k->n->fh);
    pstr(k, name);
    call_send(k);
}

static void do_forget(fuse_ino_t ino, uint64_t n) {
    struct node *nd = N(ino);
    if (nd == root)
        return;
    nd->nlookup -= n < nd->nlookup ? n : nd->nlookup;
    node_put(nd);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n) {
    do_forget(ino, n);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t cnt, struct fuse_forget_data *f) {
    size_t i;
    for (i = 0; i < cnt; i++)
        do_forget(f[i].ino, f[i].nlookup);
    fuse_reply_none(req);
}

static void cb_getattr(struct call *k, struct xdr *x, int err) {
    struct stat st;
    if (err) {
        done_err(k, err);
        return;
    }
    gattr(x, &st);
    if (x->bad) {
        done_err(k, EIO);
        return;
    }
    if (node_changed(k->n, &st))
        k->n->have = false; /* next open drops pages */
    fuse_reply_attr(k->req, &st, opt.ac);
    call_free(k);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    struct call *k = newcall(req, P_GETATTR, ino, 0, cb_getattr);
    (void)fi;
    pfh(k, &k->n->fh);
    call_send(k);
}

static void p_sattr(struct call *k, const struct stat *a, int set) {
    if (set & FUSE_SET_ATTR_MODE) {
        p32(k, 1);
        p32(k, a->st_mode & 07777);
    } else
        p32(k, 0);
    if (set & FUSE_SET_ATTR_UID) {
        p32(k, 1);
        p32(k, a->st_uid);
    } else
        p32(k, 0);
    if (set & FUSE_SET_ATTR_GID) {
        p32(k, 1);
        p32(k, a->st_gid);
    } else
        p32(k, 0);
    if (set & FUSE_SET_ATTR_SIZE) {
        p32(k, 1);
        p64(k, a->st_size);
    } else
        p32(k, 0);
    if (set & FUSE_SET_ATTR_ATIME_NOW)
        p32(k, 1);
    else if (set & FUSE_SET_ATTR_ATIME) {
        p32(k, 2);
        p32(k, a->st_atim.tv_sec);
        p32(k, a->st_atim.tv_nsec);
    } else
        p32(k, 0);
    if (set & FUSE_SET_ATTR_MTIME_NOW)
        p32(k, 1);
    else if (set & FUSE_SET_ATTR_MTIME) {
        p32(k, 2);
        p32(k, a->st_mtim.tv_sec);
        p32(k, a->st_mtim.tv_nsec);
    } else
        p32(k, 0);
}

static void cb_setattr(struct call *k, struct xdr *x, int err) {
    struct stat st;
    if (err) {
        done_err(k, err);
        return;
    }
    if (gwcc(x, &st)) {
        node_attr(k->n, &st);
        fuse_reply_attr(k->req, &st, opt.ac);
        call_free(k);
        return;
    }
    call_again(k, P_GETATTR, cb_getattr);
    pfh(k, &k->n->fh);
    call_send(k);
}

static void setattr_now(struct call *k, int err) {
    if (err) {
        done_err(k, err);
        return;
    }
    call_again(k, P_SETATTR, cb_setattr);
    pfh(k, &k->n->fh);
    p_sattr(k, &k->st, k->to_set);
    p32(k, 0);
    call_send(k);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *a, int set, struct fuse_file_info *fi) {
    struct call *k = newcall(req, P_SETATTR, ino, 0, cb_setattr);
    if (fi) /* ftruncate: the opener's right */
        k->cred = ((struct ofile *)(uintptr_t)fi->fh)->cred;
    k->st = *a;
    k->to_set = set;
    /* a write that is sent again later must not undo the new size */
    if (set & FUSE_SET_ATTR_SIZE && (k->n->unstable || k->n->committing))
        commit_then(k, setattr_now);
    else
        setattr_now(k, 0);
}

static void cb_readlink(struct call *k, struct xdr *x, int err) {
    struct stat st;
    uint32_t n;
    const char *d;
    char buf[4097];
    if (err) {
        done_err(k, err);
        return;
    }
    gpostattr(x, &st);
    d = gopaque(x, &n);
    if (x->bad || n > 4096) {
        done_err(k, EIO);
        return;
    }
    memcpy(buf, d, n);
    buf[n] = 0;
    fuse_reply_readlink(k->req, buf);
    call_free(k);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino) {
    struct call *k = newcall(req, P_READLINK, ino, 0, cb_readlink);
    pfh(k, &k->n->fh);
    call_send(k);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode) {
    struct call *k = newcall(req, P_MKDIR, dir, 0, cb_newobj);
    struct stat a = {.st_mode = mode};
    k->name = strdup(name);
    pfh(k, &k->n->fh);
    pstr(k, name);
    p_sattr(k, &a, FUSE_SET_ATTR_MODE);
    call_send(k);
}

static void op_symlink(fuse_req_t req, const char *to, fuse_ino_t dir, const char *name) {
    struct call *k = newcall(req, P_SYMLINK, dir, 0, cb_newobj);
    struct stat a = {.st_mode = 0777};
    k->name = strdup(name);
    pfh(k, &k->n->fh);
    pstr(k, name);
    p_sattr(k, &a, FUSE_SET_ATTR_MODE);
    pstr(k, to);
    call_send(k);
}

static void p_create(struct call *k, const char *name, mode_t mode, bool excl) {
    struct stat a = {.st_mode = mode};
    pfh(k, &k->n->fh);
    pstr(k, name);
    p32(k, excl ? 1 : 0);
    p_sattr(k, &a, FUSE_SET_ATTR_MODE);
}

static void op_mknod(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, dev_t rdev) {
    struct stat a = {.st_mode = mode};
    struct call *k = newcall(req, S_ISREG(mode) ? P_CREATE : P_MKNOD, dir, 0, cb_newobj);
    k->name = strdup(name);
    if (S_ISREG(mode)) {
        p_create(k, name, mode, true);
        call_send(k);
        return;
    }
    pfh(k, &k->n->fh);
    pstr(k, name);
    p32(k, S_ISBLK(mode) ? 3 : S_ISCHR(mode) ? 4 : S_ISSOCK(mode) ? 6 : 7);
    p_sattr(k, &a, FUSE_SET_ATTR_MODE);
    if (S_ISBLK(mode) || S_ISCHR(mode)) {
        p32(k, major(rdev));
        p32(k, minor(rdev));
    }
    call_send(k);
}

static void op_create(fuse_req_t req, fuse_ino_t dir, const char *name, mode_t mode, struct fuse_file_info *fi) {
    struct call *k = newcall(req, P_CREATE, dir, 0, cb_newobj);
    k->name = strdup(name);
    k->fi = *fi;
    k->of = calloc(1, sizeof *k->of);
    k->of->cred = k->cred;
    k->of->append = fi->flags & O_APPEND;
    p_create(k, name, mode, fi->flags & O_EXCL);
    call_send(k);
}

static void cb_link(struct call *k, struct xdr *x, int err) {
    if (err) {
        done_err(k, err);
        return;
    }
    k->fh = k->n->fh;
    if (gpostattr(x, &k->st))
        entry_ok(k);
    else
        entry_need_attr(k);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t dir, const char *name) {
    struct call *k = newcall(req, P_LINK, ino, dir, cb_link);
    pfh(k, &k->n->fh);
    pfh(k, &k->n2->fh);
    pstr(k, name);
    call_send(k);
}

static void cb_simple(struct call *k, struct xdr *x, int err) {
    (void)x;
    done_err(k, err);
}

static char *silly_name(void) {
    static unsigned cnt;
    char *s = NULL;
    if (asprintf(&s, ".nfs%08x%08x%04x", (unsigned)time(NULL), next_xid, cnt++ & 0xffff) < 0)
        abort();
    return s;
}

static void set_silly(struct call *k, struct node *victim, struct node *dir) {
    victim->silly = k->name2;
    k->name2 = NULL;
    victim->sillydir = dir;
    dir->refs++;
    victim->sillycred = k->cred;
}

static void cb_silly_quiet(struct call *k, struct xdr *x, int err) {
    (void)x;
    (void)err;
    call_free(k);
}

static void silly_remove(struct node *n) {
    struct call *k = call_new(&nfs, P_REMOVE, &n->sillycred, cb_silly_quiet);
    k->n = n->sillydir; /* passes the reference on */
    pfh(k, &n->sillydir->fh);
    pstr(k, n->silly);
    free(n->silly);
    n->silly = NULL;
    n->sillydir = NULL;
    call_send(k);
}

/* unlink: LOOKUP first when a file is open here, to see if it is that one */
static void cb_unlink_silly(struct call *k, struct xdr *x, int err) {
    struct node *v = node_find(&k->fh);
    (void)x;
    if (!err && v && v->nopen && !v->silly)
        set_silly(k, v, k->n);
    done_err(k, err);
}

static void cb_unlink_lookup(struct call *k, struct xdr *x, int err) {
    struct node *v;
    if (err) {
        done_err(k, err);
        return;
    }
    gfh(x, &k->fh);
    v = node_find(&k->fh);
    if (v && v->nopen) {
        if (v->silly) {
            done_err(k, EBUSY);
            return;
        }
        k->name2 = silly_name();
        call_again(k, P_RENAME, cb_unlink_silly);
        pfh(k, &k->n->fh);
        pstr(k, k->name);
        pfh(k, &k->n->fh);
        pstr(k, k->name2);
    } else {
        call_again(k, P_REMOVE, cb_simple);
        pfh(k, &k->n->fh);
        pstr(k, k->name);
    }
    call_send(k);
}

static void op_unlink(fuse_req_t req, fuse_ino_t dir, const char *name) {
    struct call *k =
        newcall(req, nopenfiles ? P_LOOKUP : P_REMOVE, dir, 0, nopenfiles ? cb_unlink_lookup : cb_simple);
    k->name = strdup(name);
    pfh(k, &k->n->fh);
    pstr(k, name);
    call_send(k);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t dir, const char *name) {
    struct call *k = newcall(req, P_RMDIR, dir, 0, cb_simple);
    pfh(k, &k->n->fh);
    pstr(k, name);
    call_send(k);
}

static void rename_now(struct call *k, bool again) {
    if (again)
        call_again(k, P_RENAME, cb_simple);
    pfh(k, &k->n->fh);
    pstr(k, k->name);
    pfh(k, &k->n2->fh);
    pstr(k, k->buf);
    call_send(k);
}

static void cb_rename_silly(struct call *k, struct xdr *x, int err) {
    struct node *v = node_find(&k->fh);
    (void)x;
    if (err && err != ENOENT) {
        done_err(k, err);
        return;
    }
    if (!err && v && v->nopen && !v->silly)
        set_silly(k, v, k->n2);
    rename_now(k, true);
}

static void cb_rename_lookup(struct call *k, struct xdr *x, int err) {
    struct node *v = NULL;
    if (!err) {
        gfh(x, &k->fh);
        v = node_find(&k->fh);
    }
    if (v && v->nopen && !v->silly) {
        /* is the source another name of the same file? then rename is a no-op */
        k->name2 = silly_name();
        call_again(k, P_RENAME, cb_rename_silly);
        pfh(k, &k->n2->fh);
        pstr(k, k->buf);
        pfh(k, &k->n2->fh);
        pstr(k, k->name2);
        call_send(k);
    } else
        rename_now(k, true);
}

static void op_rename(fuse_req_t req, fuse_ino_t dir, const char *name, fuse_ino_t ndir, const char *nname,
                      unsigned flags) {
    struct call *k;
    if (flags) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    k = newcall(req, nopenfiles ? P_LOOKUP : P_RENAME, dir, ndir, nopenfiles ? cb_rename_lookup : cb_simple);
    k->name = strdup(name);
    k->buf = strdup(nname);
    if (nopenfiles) {
        pfh(k, &k->n2->fh);
        pstr(k, nname);
        call_send(k);
    } else
        rename_now(k, false);
}

/* ---- open, read, write, close */
static void cb_open(struct call *k, struct xdr *x, int err) {
    struct stat st;
    bool has = false;
    uint32_t acc, want = 0;
    int m = k->fi.flags & O_ACCMODE;
    if (err) {
        free(k->of);
        done_err(k, err);
        return;
    }
    has = gpostattr(x, &st);
    acc = g32(x);
    if (m != O_WRONLY && !(k->fi.flags & 0x20))
        want |= 1;
    if (m != O_RDONLY)
        want |= k->of->append ? 8 : 4;
    if (m == O_RDONLY && (k->fi.flags & 0x20) && !(acc & 0x21))
        want |= 0x20;
    if (!x->bad && (acc & want) != want) {
        free(k->of);
        done_err(k, EACCES);
        return;
    }
    k->fi.fh = (uintptr_t)k->of;
    k->fi.direct_io = k->of->append;
    k->fi.keep_cache = has && !node_changed(k->n, &st);
    if (has) {
        if (!k->fi.keep_cache)
            fuse_lowlevel_notify_inval_inode(se, INO(k->n), -1, 0);
        node_attr(k->n, &st);
    }
    k->n->refs++;
    k->n->nopen++;
    nopenfiles++;
    if (fuse_reply_open(k->req, &k->fi) == -ENOENT) {
        k->n->refs--;
        k->n->nopen--;
        nopenfiles--;
        free(k->of);
    }
    call_free(k);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    struct call *k = newcall(req, P_ACCESS, ino, 0, cb_open);
    k->fi = *fi;
    k->of = calloc(1, sizeof *k->of);
    k->of->cred = k->cred;
    k->of->append = fi->flags & O_APPEND;
    pfh(k, &k->n->fh);
    p32(k, 0x2d);
    call_send(k);
}

static void read_next(struct call *k);

static void cb_read(struct call *k, struct xdr *x, int err) {
    struct stat st;
    uint32_t n, eof;
    const void *d;
    if (err) {
        done_err(k, err);
        return;
    }
    gpostattr(x, &st);
    g32(x);
    eof = g32(x);
    d = gopaque(x, &n);
    if (x->bad) {
        done_err(k, EIO);
        return;
    }
    if (!k->done && (eof || n >= k->size || n == 0)) {
        fuse_reply_buf(k->req, d, n < k->size ? n : k->size);
        call_free(k);
        return;
    }
    if (!k->buf)
        k->buf = malloc(k->size);
    if (n > k->size - k->done)
        n = k->size - k->done;
    memcpy(k->buf + k->done, d, n);
    k->done += n;
    if (eof || n == 0 || k->done == k->size) {
        fuse_reply_buf(k->req, k->buf, k->done);
        call_free(k);
        return;
    }
    call_again(k, P_READ, cb_read);
    read_next(k);
}

static void read_next(struct call *k) {
    uint32_t n = k->size - k->done;
    if (n > rtmax)
        n = rtmax;
    pfh(k, &k->n->fh);
    p64(k, k->off + k->done);
    p32(k, n);
    call_send(k);
}

static struct call *iocall(fuse_req_t req, fuse_ino_t ino, uint32_t proc, struct fuse_file_info *fi,
                           void (*cb)(struct call *, struct xdr *, int)) {
    struct ofile *of = (struct ofile *)(uintptr_t)fi->fh;
    struct call *k = call_new(&nfs, proc, &of->cred, cb);
    k->req = req;
    k->of = of;
    hold(k, ino, 0);
    return k;
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    struct call *k = iocall(req, ino, P_READ, fi, cb_read);
    k->size = size;
    k->off = off;
    read_next(k);
}

static void commit_in_background(struct node *n, const struct cred *cred);

/* The call's buffer holds the data: keep it until a COMMIT says that the server has it on disk. */
static void keep_write(struct call *k) {
    struct node *n = k->n;
    k->req = NULL;
    k->of = NULL;
    free(k->buf);
    k->buf = NULL;
    k->next = n->unstable;
    n->unstable = k;
    n->unstable_bytes += k->size;
    if ((n->unstable_bytes > UNSTABLE_MAX && !n->committing) || !n->nopen)
        commit_in_background(n, &k->cred);
}

static void cb_write(struct call *k, struct xdr *x, int err) {
    struct stat st, pre;
    uint32_t n, committed;
    bool has, foreign = false;
    if (err) {
        done_err(k, err);
        return;
    }
    if (g32(x)) { /* someone else wrote in between? */
        pre.st_size = g64(x);
        gtime(x, &pre.st_mtim);
        gtime(x, &pre.st_ctim);
        foreign = node_changed(k->n, &pre);
    }
    has = gpostattr(x, &st);
    n = g32(x);
    committed = g32(x);
    gfixed(x, k->verf, 8);
    if (x->bad) {
        done_err(k, EIO);
        return;
    }
    if (has && k->n->have && !foreign)
        node_attr(k->n, &st);
    else
        k->n->have = false;
    if (k->of && k->of->append)
        fuse_lowlevel_notify_inval_inode(se, INO(k->n), -1, 0);
    fuse_reply_write(k->req, n);
    if (committed == 0)
        keep_write(k);
    else
        call_free(k);
}

static void write_now(struct call *k, const char *d) {
    size_t n = k->size > wtmax ? wtmax : k->size;
    pfh(k, &k->n->fh);
    p64(k, k->off);
    p32(k, n);
    k->stable_at = k->len;
    p32(k, 0); /* UNSTABLE */
    popaque(k, d, n);
    call_send(k);
}

static void cb_write_eof(struct call *k, struct xdr *x, int err) {
    struct stat st;
    if (err) {
        done_err(k, err);
        return;
    }
    gattr(x, &st);
    if (x->bad) {
        done_err(k, EIO);
        return;
    }
    k->off = st.st_size;
    call_again(k, P_WRITE, cb_write);
    write_now(k, k->buf);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *d, size_t size, off_t off,
                     struct fuse_file_info *fi) {
    struct ofile *of = (struct ofile *)(uintptr_t)fi->fh;
    bool app = of->append && !fi->writepage;
    struct call *k = iocall(req, ino, app ? P_GETATTR : P_WRITE, fi, app ? cb_write_eof : cb_write);
    k->size = size;
    k->off = off;
    if (app) { /* O_APPEND: at the server's end */
        k->buf = malloc(size);
        memcpy(k->buf, d, size);
        pfh(k, &k->n->fh);
        call_send(k);
    } else
        write_now(k, d);
}

/* When the COMMIT and what had to be written again are through. */
static void batch_done(struct call *k) {
    struct call *w, *next;
    if (k->pending)
        return;
    w = k->n->waiting;
    k->n->waiting = NULL;
    k->n->committing = false;
    k->then(k, k->err);
    for (; w; w = next) {
        next = w->next;
        commit_then(w, w->then);
    }
}

static void cb_rewrite(struct call *w, struct xdr *x, int err) {
    struct call *k = w->parent;
    (void)x;
    if (err && !k->err)
        k->err = err;
    call_free(w);
    k->pending--;
    batch_done(k);
}

/* A new verifier: the server restarted since the write and may have lost it. Write it again, FILE_SYNC. */
static void rewrite(struct call *k, struct call *w) {
    uint32_t xid, file_sync = htonl(2);
    w->xid = next_xid++;
    xid = htonl(w->xid);
    memcpy(w->o + 4, &xid, 4);
    memcpy(w->o + w->stable_at, &file_sync, 4);
    w->cb = cb_rewrite;
    w->parent = k;
    k->pending++;
    call_send(w);
}

static void cb_commit(struct call *k, struct xdr *x, int err) {
    struct call *w, *next, *oldest_first = NULL;
    struct stat st;
    char verf[8];
    k->err = err;
    if (!err) {
        if (gwcc(x, &st) && !k->n->unstable)
            node_attr(k->n, &st);
        gfixed(x, verf, 8);
        if (x->bad)
            k->err = EIO;
    }
    for (w = k->batch; w; w = next) {
        next = w->next;
        w->next = oldest_first;
        oldest_first = w;
    }
    k->batch = NULL;
    for (w = oldest_first; w; w = next) {
        next = w->next;
        if (k->err || !memcmp(w->verf, verf, 8))
            call_free(w);
        else
            rewrite(k, w);
    }
    if (k->pending)
        syslog(LOG_NOTICE, "the server restarted before a COMMIT: sending %u writes again", k->pending);
    batch_done(k);
}

/* COMMIT the file of call k, then go on with the call. */
static void commit_then(struct call *k, void (*then)(struct call *, int err)) {
    k->then = then;
    if (k->n->committing) {
        k->next = k->n->waiting;
        k->n->waiting = k;
        return;
    }
    k->n->committing = true;
    k->batch = k->n->unstable;
    k->n->unstable = NULL;
    k->n->unstable_bytes = 0;
    call_again(k, P_COMMIT, cb_commit);
    pfh(k, &k->n->fh);
    p64(k, 0);
    p32(k, 0);
    call_send(k);
}

static void background_done(struct call *k, int err) {
    if (err)
        syslog(LOG_ERR, "COMMIT: %s", strerror(err));
    call_free(k);
}

static void commit_in_background(struct node *n, const struct cred *cred) {
    struct call *k = call_new(&nfs, P_COMMIT, cred, NULL);
    hold(k, INO(n), 0);
    commit_then(k, background_done);
}

static void commit(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    if (N(ino)->unstable || N(ino)->committing)
        commit_then(iocall(req, ino, P_COMMIT, fi, NULL), done_err);
    else
        fuse_reply_err(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int ds, struct fuse_file_info *fi) {
    (void)ds;
    commit(req, ino, fi);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int ds, struct fuse_file_info *fi) {
    (void)ino;
    (void)ds;
    (void)fi;
    fuse_reply_err(req, 0);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    commit(req, ino, fi);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    struct node *n = N(ino);
    struct ofile *of = (struct ofile *)(uintptr_t)fi->fh;
    n->nopen--;
    nopenfiles--;
    if (!n->nopen && n->silly)
        silly_remove(n);
    if (!n->nopen && n->unstable) /* pages of a mapping, written after the last flush */
        commit_in_background(n, &of->cred);
    n->refs--;
    free(of);
    node_put(n);
    fuse_reply_err(req, 0);
}

/* ---- directories */
static void odir_clear(struct odir *d) {
    int i;
    for (i = 0; i < d->n; i++)
        free(d->e[i].name);
    d->n = 0;
    d->eof = false;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    struct odir *d = calloc(1, sizeof *d);
    (void)ino;
    get_cred(req, &d->cred);
    d->start = ~0ULL;
    fi->fh = (uintptr_t)d;
    if (fuse_reply_open(req, fi) == -ENOENT)
        free(d);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi) {
    struct odir *d = (struct odir *)(uintptr_t)fi->fh;
    (void)ino;
    odir_clear(d);
    free(d->e);
    free(d);
    fuse_reply_err(req, 0);
}

static int odir_index(struct odir *d, uint64_t off) {
    int i;
    if (d->start == off && (d->n || d->eof))
        return 0;
    for (i = d->n - 1; i >= 0; i--)
        if (d->e[i].cookie == off)
            return i + 1 < d->n || d->eof ? i + 1 : -1;
    return -1;
}

static void dir_reply(fuse_req_t req, struct odir *d, int i, size_t size, bool plus) {
    char *b = malloc(size);
    size_t used = 0;
    for (; i < d->n; i++) {
        struct dent *e = &d->e[i];
        size_t r;
        bool dot = !strcmp(e->name, ".") || !strcmp(e->name, "..");
        if (plus) {
            struct fuse_entry_param p = {0};
            p.attr = e->st;
            p.attr.st_ino = e->fileid;
            p.attr_timeout = p.entry_timeout = opt.ac;
            p.generation = 1;
            r = fuse_add_direntry_plus(req, NULL, 0, e->name, NULL, 0);
            if (used + r > size)
                break;
            if (!dot && e->have_fh && e->have_attr) {
                struct node *n = node_get(&e->fh);
                if (node_changed(n, &e->st))
                    n->have = false;
                n->nlookup++;
                p.ino = INO(n);
            }
            used += fuse_add_direntry_plus(req, b + used, size - used, e->name, &p, e->cookie);
        } else {
            struct stat st = {.st_ino = e->fileid, .st_mode = e->have_attr ? e->st.st_mode : 0};
            r = fuse_add_direntry(req, b + used, size - used, e->name, &st, e->cookie);
            if (r > size - used)
                break;
            used += r;
        }
    }
    fuse_reply_buf(req, b, used);
    free(b);
}

static void cb_readdir(struct call *k, struct xdr *x, int err) {
    struct odir *d = k->od;
    struct stat st;
    if (err) {
        done_err(k, err);
        return;
    }
    odir_clear(d);
    d->start = k->off;
    gpostattr(x, &st);
    gfixed(x, d->verf, 8);
    while (g32(x) && !x->bad) {
        struct dent *e;
        const char *nm;
        uint32_t n;
        if (d->n == d->cap) {
            d->cap = d->cap ? d->cap * 2 : 64;
            d->e = realloc(d->e, d->cap * sizeof *d->e);
        }
        e = &d->e[d->n];
        memset(e, 0, sizeof *e);
        e->fileid = g64(x);
        nm = gopaque(x, &n);
        e->cookie = g64(x);
        e->have_attr = gpostattr(x, &e->st);
        if (g32(x)) {
            gfh(x, &e->fh);
            e->have_fh = true;
        }
        if (x->bad)
            break;
        if (d->n && (e->cookie == d->e[0].cookie || e->cookie == d->start)) {
            syslog(LOG_ERR, "server loops in READDIR (cookie %llu)", (unsigned long long)e->cookie);
            done_err(k, ELOOP);
            return;
        }
        e->name = strndup(nm, n);
        d->n++;
    }
    d->eof = g32(x);
    if (x->bad) {
        done_err(k, EIO);
        return;
    }
    dir_reply(k->req, d, 0, k->size, k->plus);
    call_free(k);
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi,
                       bool plus) {
    struct odir *d = (struct odir *)(uintptr_t)fi->fh;
    int i = off ? odir_index(d, off) : -1; /* off 0: rewinddir reads afresh */
    struct call *k;
    if (i >= 0) {
        dir_reply(req, d, i, size, plus);
        return;
    }
    if (!off)
        memset(d->verf, 0, 8);
    k = call_new(&nfs, P_READDIRPLUS, &d->cred, cb_readdir);
    k->req = req;
    k->od = d;
    k->plus = plus;
    k->size = size;
    k->off = off;
    hold(k, ino, 0);
    pfh(k, &k->n->fh);
    p64(k, off);
    pfixed(k, d->verf, 8);
    p32(k, 16384);
    p32(k, 65536);
    call_send(k);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    do_readdir(req, ino, size, off, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi) {
    do_readdir(req, ino, size, off, fi, true);
}

static void cb_statfs(struct call *k, struct xdr *x, int err) {
    struct stat st;
    struct statvfs v = {0};
    if (err) {
        done_err(k, err);
        return;
    }
    gpostattr(x, &st);
    v.f_bsize = v.f_frsize = 4096;
    v.f_namemax = 255;
    v.f_blocks = g64(x) / 4096;
    v.f_bfree = g64(x) / 4096;
    v.f_bavail = g64(x) / 4096;
    v.f_files = g64(x);
    v.f_ffree = g64(x);
    v.f_favail = g64(x);
    if (x->bad) {
        done_err(k, EIO);
        return;
    }
    fuse_reply_statfs(k->req, &v);
    call_free(k);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino) {
    struct call *k = newcall(req, P_FSSTAT, ino ? ino : FUSE_ROOT_ID, 0, cb_statfs);
    pfh(k, &k->n->fh);
    call_send(k);
}

static struct fuse_lowlevel_ops ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .release = op_release,
    .fsync = op_fsync,
    .fsyncdir = op_fsyncdir,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .statfs = op_statfs,
    .create = op_create,
};

/* ----------------------------------------------------- mounting (sync) --- */
static int sync_rpc(struct sockaddr_storage *ss, socklen_t sl, int port, uint32_t prog, uint32_t vers,
                    uint32_t proc, void (*args)(struct call *, void *), void *arg, unsigned char *out, size_t cap,
                    struct xdr *x) {
    struct call *k = calloc(1, sizeof *k);
    struct cred cr = {.uid = 0, .gid = 0};
    struct sockaddr_storage s = *ss;
    struct timeval tv = {5, 0};
    int fd = -1, rc = -ETIMEDOUT;
    size_t got = 0, want = 4;
    uint32_t n;
    if (s.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&s)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)&s)->sin_port = htons(port);
    k->cap = 512;
    k->o = malloc(512);
    p_header(k, prog, vers, proc, &cr);
    if (args)
        args(k, arg);
    finish_mark(k);
    fd = socket(s.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (opt.resvport)
        bind_resv(fd, s.ss_family);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    if (connect(fd, (void *)&s, sl)) {
        rc = errno == EINPROGRESS ? -ETIMEDOUT : -errno;
        goto out;
    }
    if (send(fd, k->o, k->len, MSG_NOSIGNAL) != (ssize_t)k->len) {
        rc = -EIO;
        goto out;
    }
    while (got < want) {
        ssize_t r = recv(fd, out + got, want - got, 0);
        if (r <= 0) {
            rc = r ? -(errno == EAGAIN ? ETIMEDOUT : errno) : -ECONNRESET;
            goto out;
        }
        got += r;
        if (got == 4) {
            memcpy(&n, out, 4);
            want = 4 + (ntohl(n) & 0x7fffffff);
            if (want > cap) {
                rc = -EIO;
                goto out;
            }
        }
    }
    x->p = out + 4;
    x->end = out + want;
    x->bad = false;
    rc = -EIO;
    if (g32(x) != k->xid || g32(x) != 1)
        goto out;
    if (g32(x) != 0) {
        rc = -EACCES;
        goto out;
    }
    g32(x);
    gopaque(x, &n);
    if (g32(x) != 0) {
        rc = -EPROTONOSUPPORT;
        goto out;
    }
    rc = x->bad ? -EIO : 0;
out:
    if (fd >= 0)
        close(fd);
    free(k->o);
    free(k);
    return rc;
}

static void a_getport(struct call *k, void *a) {
    uint32_t *v = a;
    p32(k, v[0]);
    p32(k, v[1]);
    p32(k, IPPROTO_TCP);
    p32(k, 0);
}

static void a_path(struct call *k, void *a) {
    pstr(k, a);
}

static void a_fh(struct call *k, void *a) {
    pfh(k, a);
}

static int getport(struct sockaddr_storage *ss, socklen_t sl, uint32_t prog, uint32_t vers) {
    unsigned char b[512];
    struct xdr x;
    uint32_t v[2] = {prog, vers};
    int rc = sync_rpc(ss, sl, 111, PMAP_PROG, 2, 3, a_getport, v, b, sizeof b, &x);
    if (rc)
        return rc;
    rc = g32(&x);
    return rc ? rc : -EPROTONOSUPPORT;
}

static void setport(struct conn *c, int port) {
    if (c->ss.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&c->ss)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)&c->ss)->sin_port = htons(port);
}

static int die(int code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "mount.nfs: ");
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return code;
}

/* True when the option o is one of the names, which end with NULL. */
static bool is_one_of(const char *o, const char *const *names) {
    while (*names && strcmp(o, *names))
        names++;
    return *names;
}

static int parse_opts(char *s) {
    static const char *const pass[] = {"nosuid", "nodev", "noexec", "noatime", "sync", "dirsync", NULL};
    static const char *const soft[] = {"soft", "softerr", NULL};
    char *o, *save, *v;
    opt.fuseopts = calloc(1, strlen(s) + 2);
    for (o = strtok_r(s, ",", &save); o; o = strtok_r(NULL, ",", &save)) {
        if ((v = strchr(o, '=')))
            *v++ = 0;
        else
            v = "";
        if (!strcmp(o, "sec") && strcmp(v, "sys"))
            return die(32, "only sec=sys is supported, not sec=%s", v);
        if (!strcmp(o, "remount"))
            return die(32, "remount is not supported");
        if (!strcmp(o, "ro"))
            opt.ro = true;
        else if (is_one_of(o, soft))
            opt.soft = true;
        else if (!strcmp(o, "noac"))
            opt.ac = 0;
        else if (!strcmp(o, "noresvport"))
            opt.resvport = false;
        else if (!strcmp(o, "actimeo"))
            opt.ac = atof(v);
        else if (!strcmp(o, "timeo") && atoi(v) > 0)
            opt.timeo = atoi(v);
        else if (!strcmp(o, "retrans"))
            opt.retrans = atoi(v);
        else if (!strcmp(o, "port"))
            opt.port = atoi(v);
        else if (!strcmp(o, "mountport"))
            opt.mountport = atoi(v);
        else if (is_one_of(o, pass)) {
            strcat(opt.fuseopts, ",");
            strcat(opt.fuseopts, o);
        }
    }
    return 0;
}

static void connection_event(struct conn *c, short revents) {
    int e = 0;
    socklen_t l = sizeof e;
    if (!c->connecting) {
        conn_read(c);
        return;
    }
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &l);
    if (e || revents & (POLLERR | POLLHUP)) {
        conn_drop(c, strerror(e));
        return;
    }
    c->connecting = false;
    c->last_rx = now_ms();
    if (c->backoff > 100)
        syslog(LOG_NOTICE, "connected again");
}

/* Takes up to 64 requests of the kernel, then lets the server have its turn. */
static void fuse_event(struct fuse_buf *fb) {
    for (int i = 0; i < 64; i++) {
        int r = fuse_session_receive_buf(se, fb);
        if (r == -EINTR)
            continue;
        if (r == 0)
            fuse_session_exit(se);
        if (r <= 0)
            return;
        fuse_session_process_buf(se, fb);
        if (ready && ready_fd >= 0) { /* tell the waiting parent */
            if (write(ready_fd, "k", 1) != 1)
                syslog(LOG_WARNING, "the parent is gone");
            close(ready_fd);
            ready_fd = -1;
        }
    }
}

static void loop(void) {
    struct fuse_buf fb = {0};
    int fuse_fd = fuse_session_fd(se);
    uint64_t last_tick = 0, now;
    fcntl(fuse_fd, F_SETFL, fcntl(fuse_fd, F_GETFL) | O_NONBLOCK);
    while (!fuse_session_exited(se)) {
        struct call **pp, *k;
        int tmo = delayed ? 50 : 1000;
        conn_flush(&nfs);
        now = now_ms();
        if (nfs.fd < 0 && nfs.sq) {
            int w = nfs.retry_at > now ? nfs.retry_at - now : 1;
            if (w < tmo)
                tmo = w;
        }
        struct pollfd p[] = {{fuse_fd, POLLIN, 0},
                             {nfs.fd, nfs.connecting ? POLLOUT : POLLIN | (nfs.sq ? POLLOUT : 0), 0}};
        if (poll(p, 2, tmo) < 0) {
            if (errno == EINTR)
                continue;
            break;
        }
        if (p[1].revents & (POLLIN | POLLERR | POLLHUP) || (nfs.connecting && p[1].revents))
            connection_event(&nfs, p[1].revents);
        if (p[0].revents)
            fuse_event(&fb);
        now = now_ms();
        for (pp = &delayed; (k = *pp);) {
            if (now < k->not_before) {
                pp = &k->next;
                continue;
            }
            *pp = k->next;
            call_send(k);
        }
        if (now - last_tick > 1000) {
            last_tick = now;
            conn_tick(&nfs);
        }
    }
    free(fb.mem);
}

int main(int argc, char **argv) {
    char *spec = NULL, *dir = NULL, *opts = NULL, *host, *path, fo[4096];
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *ai;
    unsigned char b[4096];
    struct xdr x;
    struct fh fh;
    struct stat st;
    int i, rc, port, mport, pfd[2], fake = 0;
    char *fargv[] = {argv[0], "-o", fo, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, fargv);

    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-o") && i + 1 < argc)
            opts = argv[++i];
        else if ((!strcmp(argv[i], "-t") || !strcmp(argv[i], "-N")) && i + 1 < argc)
            i++;
        else if (!strcmp(argv[i], "-V")) {
            puts("mount.nfs of the test lab (NFSv3 by FUSE)");
            return 0;
        } else if (argv[i][0] == '-') {
            if (strchr(argv[i], 'r'))
                opt.ro = true;
            if (strchr(argv[i], 'f'))
                fake = 1;
        } else if (!spec)
            spec = argv[i];
        else if (!dir)
            dir = argv[i];
    }
    if (!spec || !dir)
        return die(1, "usage: mount.nfs server:/path /target [-o options]");
    if ((rc = parse_opts(strdup(opts ? opts : ""))))
        return rc;
    host = strdup(spec);
    path = host[0] == '[' ? strstr(host, "]:/") : strstr(host, ":/");
    if (!path)
        return die(32, "remote share not in 'host:dir' format: %s", spec);
    if (host[0] == '[') {
        host++;
        *path++ = 0;
    }
    *path++ = 0;
    while (strlen(path) > 1 && path[strlen(path) - 1] == '/')
        path[strlen(path) - 1] = 0;
    if (stat(dir, &st))
        return die(32, "mount point %s does not exist", dir);
    if (!S_ISDIR(st.st_mode))
        return die(32, "mount point %s is not a directory", dir);
    if ((rc = getaddrinfo(host, NULL, &hint, &ai)))
        return die(32, "Failed to resolve server %s: %s", host, gai_strerror(rc));
    memcpy(&nfs.ss, ai->ai_addr, ai->ai_addrlen);
    nfs.sslen = ai->ai_addrlen;
    gethostname(machine, sizeof machine - 1);
    next_xid = (uint32_t)time(NULL) * 2654435761u ^ (uint32_t)getpid() << 16;

    mport = opt.mountport ? (int)opt.mountport : getport(&nfs.ss, nfs.sslen, MNT_PROG, 3);
    if (mport < 0)
        return die(32, "%s (rpcbind/mountd of %s)", strerror(-mport), host);
    port = opt.port ? (int)opt.port : getport(&nfs.ss, nfs.sslen, NFS_PROG, 3);
    if (port < 0)
        port = 2049;
    rc = sync_rpc(&nfs.ss, nfs.sslen, mport, MNT_PROG, 3, 1, a_path, path, b, sizeof b, &x);
    if (rc)
        return die(32, "%s while asking mountd of %s", strerror(-rc), host);
    rc = g32(&x);
    if (rc == 13 || rc == 1)
        return die(32, "access denied by server while mounting %s", spec);
    if (rc == 2)
        return die(32, "mounting %s failed, reason given by server: No such file or directory", spec);
    if (rc)
        return die(32, "mounting %s failed, reason given by server: %d", spec, rc);
    gfh(&x, &fh);
    if (x.bad)
        return die(32, "bad reply of mountd");
    for (i = 0; i < 4; i++) { /* a server that just restarted may drop it */
        rc = sync_rpc(&nfs.ss, nfs.sslen, port, NFS_PROG, 3, P_FSINFO, a_fh, &fh, b, sizeof b, &x);
        if (rc != -ETIMEDOUT && rc != -ECONNRESET && rc != -ECONNREFUSED)
            break;
        sleep(1);
    }
    if (rc)
        return die(32, "%s while talking to nfs on %s", strerror(-rc), host);
    if ((rc = g32(&x)))
        return die(32, "FSINFO on %s: %s", spec, strerror(nfs_errno(rc)));
    gpostattr(&x, &st);
    rtmax = g32(&x);
    g32(&x);
    g32(&x);
    wtmax = g32(&x);
    if (rtmax > 1048576)
        rtmax = 1048576;
    if (wtmax > 1048576)
        wtmax = 1048576;
    if (rtmax < 4096 || wtmax < 4096)
        return die(32, "bad FSINFO of server");
    setport(&nfs, port);
    nfs.prog = NFS_PROG;
    nfs.vers = 3;
    conn_init(&nfs);
    root = node_get(&fh);
    root->nlookup = 1;
    if (fake)
        return 0;

    snprintf(fo, sizeof fo, "fsname=%s,subtype=nfs,allow_other,default_permissions,max_read=%u%s%s", spec, rtmax,
             opt.fuseopts, opt.ro ? ",ro" : "");
    se = fuse_session_new(&args, &ops, sizeof ops, NULL);
    if (!se)
        return die(32, "cannot create a FUSE session");
    if (pipe2(pfd, O_CLOEXEC))
        return die(32, "pipe: %s", strerror(errno));
    switch (fork()) {
    case -1:
        return die(32, "fork: %s", strerror(errno));
    case 0:
        break;
    default:
        close(pfd[1]);
        if (read(pfd[0], b, 1) == 1 && b[0] == 'k')
            return 0;
        return 32;
    }
    setsid();
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    openlog("mount.nfs", LOG_PID, LOG_DAEMON);
    if (fuse_session_mount(se, dir)) {
        die(32, "mount on %s failed: %s", dir, strerror(errno));
        _exit(32);
    }
    fuse_set_signal_handlers(se);
    if (chdir("/"))
        syslog(LOG_WARNING, "chdir /: %s", strerror(errno));
    if ((i = open("/dev/null", O_RDWR)) >= 0) {
        dup2(i, 0);
        dup2(i, 1);
        dup2(i, 2);
        if (i > 2)
            close(i);
    }
    ready_fd = pfd[1];
    close(pfd[0]);
    syslog(LOG_INFO, "mounted %s on %s", spec, dir);
    loop();
    fuse_session_unmount(se);
    syslog(LOG_INFO, "unmounted %s", dir);
    return 0;
}
