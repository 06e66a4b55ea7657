/*
 * errors.h: the SQLSTATEs of pg_jobq, one cause each.
 *
 * Holds nothing but the codes; messages belong to the place that raises them.
 */
#ifndef JOBQ_ERRORS_H
#define JOBQ_ERRORS_H

#define JOBQ_SQLSTATE(c1, c2)		MAKE_SQLSTATE('J', 'Q', '0', c1, c2)

#define ERRCODE_JOBQ_LEASE_LOST			JOBQ_SQLSTATE('0', '1')
#define ERRCODE_JOBQ_NO_QUEUE			JOBQ_SQLSTATE('0', '2')
#define ERRCODE_JOBQ_DRAINING			JOBQ_SQLSTATE('0', '3')
#define ERRCODE_JOBQ_TOO_LARGE			JOBQ_SQLSTATE('0', '4')
#define ERRCODE_JOBQ_TOO_FAST			JOBQ_SQLSTATE('0', '5')
#define ERRCODE_JOBQ_QUEUE_FULL			JOBQ_SQLSTATE('0', '6')
#define ERRCODE_JOBQ_BAD_ARGUMENT		JOBQ_SQLSTATE('0', '7')
#define ERRCODE_JOBQ_DUPLICATE			JOBQ_SQLSTATE('0', '8')
#define ERRCODE_JOBQ_NOT_READY			JOBQ_SQLSTATE('0', '9')
#define ERRCODE_JOBQ_KEY_REFUSED			JOBQ_SQLSTATE('1', '3')
#define ERRCODE_JOBQ_CANCELLED			JOBQ_SQLSTATE('1', '4')
#define ERRCODE_JOBQ_SETTLED			JOBQ_SQLSTATE('1', '5')
#define ERRCODE_JOBQ_SIGNATURE			JOBQ_SQLSTATE('1', '9')
#define ERRCODE_JOBQ_NO_JOB				JOBQ_SQLSTATE('2', '0')

#endif							/* JOBQ_ERRORS_H */
