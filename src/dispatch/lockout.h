/*
 * lockout.h: which clients have presented too many wrong keys, and for how long
 * they are not listened to. In shared memory only: a restart forgets it.
 */
#ifndef JOBQ_LOCKOUT_H
#define JOBQ_LOCKOUT_H

#include "datatype/timestamp.h"

#define JOBQ_ADDRESS_LEN		16

/* Where a client comes from; compared as bytes, so cleared before it is set. */
typedef struct JobqAddress
{
	int32		family;			/* 0: this machine; then it is its role */
	Oid			role;
	uint8		bytes[JOBQ_ADDRESS_LEN];
} JobqAddress;

/* For how long, in us, nothing from there is looked at; 0 = it is. */
extern int64 jobq_lockout_left(const JobqAddress *from, TimestampTz now);

/* A wrong key has come from there. */
extern void jobq_lockout_failed(const JobqAddress *from, TimestampTz now);

extern Size jobq_lockout_size(void);
extern void jobq_lockout_request(void);
extern void jobq_lockout_init(void);

#endif							/* JOBQ_LOCKOUT_H */
