/* A stand-in for a driver: one of each thing that the reader of DWARF must understand.
 * driver.o.gz was made from it by:
 *   gcc-12 -g -O2 -fno-ipa-sra -fno-ipa-cp -fdebug-prefix-map=$PWD=. -c driver.c && gzip -9n driver.o
 * (lines and locations are read in test_probes_sites.py)
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum state { OFF, ON };

struct vbd {
	u16 handle;
	u32 first : 4;
	u32 persistent : 1;
	const volatile u16 *shared;
};

struct ring;

struct request {
	u8 operation;
	union {
		struct {
			u8 nr_segments;
			u64 id;
			u64 seg[11];
		} __attribute__((packed)) rw;
		u64 words[4];
	} u;
	struct {
		int anonymous;
	};
	u16 matrix[3][2];
	char name[16];
	char tail[];
};

struct pending {
	struct ring *ring;
	struct request *all[8];
	enum state state;
};

struct ring {
	struct vbd vbd;
	struct pending *pending;
};

struct pair {
	u32 id;
};

int sink;

__attribute__((noinline)) static struct request *find(struct ring *ring, u32 gref, _Bool ro)
{
	sink += gref + ro;
	return ring->pending->all[gref];
}

__attribute__((noinline)) static long store(struct pair t, const char *dir, void *data)
{
	sink += t.id + *dir;
	return (long)data;
}

static inline __attribute__((always_inline)) int inlined(struct ring *ring)
{
	return ring->vbd.handle;
}

long entry(struct ring *ring, u32 gref)
{
	struct request *request = find(ring, gref, inlined(ring));
	struct pair t = { gref };

	return store(t, request->name, request) + find(ring, gref + 1, 0)->operation;
}

static u32 limit = 20;
static struct ring *last;
extern u32 elsewhere;
extern void use(struct request *request, u32 *count);

static struct request *pick(struct ring *ring, u32 gref, u32 unused)
{
	struct request *picked = ring->pending->all[gref];

	if (gref < limit) /* picked is no word of this line */
		sink += gref;
	return picked;
}

long first(struct ring *ring, u32 gref)
{
	struct request local = { .operation = gref };
	u32 count = 3;
	struct request *one = pick(ring, gref, 5);

	use(&local, &count);
	last = ring;
	if (!one)
		return -1;
	sink += one->operation;
	return count + elsewhere;
}

long __attribute__((section(".init.text"))) second(struct ring *ring)
{
	return pick(ring, 7, 0)->operation + last->vbd.handle;
}
