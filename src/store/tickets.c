/*
 * tickets.c: an ascending list of tickets as a bytea: the first number and
 * then the differences, each in LEB128 (seven bits a byte, lowest first, the
 * top bit says that more follow). Knows nothing of what tickets mean.
 */
#include "postgres.h"

#include "fmgr.h"

#include "store/store.h"

#define MORE_FOLLOW			0x80
#define BITS_A_BYTE			7
#define NUMBER_MAX_BYTES	10	/* of 64 bits */

static char *
put_number(char *to, uint64 number)
{
	while (number >= MORE_FOLLOW)
	{
		*to++ = (char) ((number & (MORE_FOLLOW - 1)) | MORE_FOLLOW);
		number >>= BITS_A_BYTE;
	}
	*to++ = (char) number;
	return to;
}

bytea *
jobq_tickets_pack(const int64 *tickets, int ntickets)
{
	bytea	   *packed = palloc(VARHDRSZ + (Size) ntickets * NUMBER_MAX_BYTES);
	char	   *to = VARDATA(packed);
	int64		last = 0;

	for (int i = 0; i < ntickets; i++)
	{
		Assert(tickets[i] >= last);
		to = put_number(to, (uint64) (tickets[i] - last));
		last = tickets[i];
	}
	SET_VARSIZE(packed, to - (char *) packed);
	return packed;
}

static void
report_damage(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("list of tickets is damaged")));
}

int
jobq_tickets_unpack(bytea *packed, int64 **tickets)
{
	struct varlena *plain = pg_detoast_datum_packed((struct varlena *) packed);
	const unsigned char *from = (const unsigned char *) VARDATA_ANY(plain);
	int			size = VARSIZE_ANY_EXHDR(plain);
	int			n = 0;
	int			shift = 0;
	uint64		number = 0;
	int64		last = 0;

	/* each number ends in exactly one byte without the top bit */
	for (int i = 0; i < size; i++)
	{
		if ((from[i] & MORE_FOLLOW) == 0)
			n++;
	}
	*tickets = palloc(Max(n, 1) * sizeof(int64));

	n = 0;
	for (int i = 0; i < size; i++)
	{
		if (shift >= NUMBER_MAX_BYTES * BITS_A_BYTE)
			report_damage();
		number |= (uint64) (from[i] & (MORE_FOLLOW - 1)) << shift;
		shift += BITS_A_BYTE;
		if (from[i] & MORE_FOLLOW)
			continue;
		if (number > (uint64) (PG_INT64_MAX - last))
			report_damage();
		last += (int64) number;
		(*tickets)[n++] = last;
		number = 0;
		shift = 0;
	}
	if (shift != 0)
		report_damage();
	return n;
}
