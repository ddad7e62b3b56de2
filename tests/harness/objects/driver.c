/* A stand-in for a driver: one of each thing that the reader of DWARF must understand.
 * driver.o.gz was made from it by:
 *   gcc-12 -g -O2 -fno-ipa-sra -fno-ipa-cp -fdebug-prefix-map=$PWD=. -c driver.c && gzip -9n driver.o
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
