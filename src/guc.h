/*
 * guc.h: the settings of pg_jobq. Defined in guc.c and nowhere else.
 */
#ifndef JOBQ_GUC_H
#define JOBQ_GUC_H

/* jobq.claim_durability */
typedef enum JobqClaimDurability
{
	JOBQ_CLAIM_ASYNC,
	JOBQ_CLAIM_ON
} JobqClaimDurability;

extern int	jobq_claim_durability;
extern int	jobq_max_live_jobs;		/* slots, the whole cluster */
extern int	jobq_max_queues;		/* queues in memory, the whole cluster */
extern int	jobq_max_databases;		/* databases with the extension */
extern int	jobq_max_rate_limits;	/* names of rates, the whole cluster */
extern char *jobq_databases;		/* names the launcher looks after, or * */

extern int	jobq_epoch_rows;		/* tickets in an epoch */
extern int	jobq_epoch_age;			/* ms */
extern int	jobq_max_history_size;	/* MB, -1 = no limit */
extern int	jobq_audit_retention;	/* s, 0 = for ever */
extern bool jobq_start_paused;	/* copies that cannot be told from originals */
extern int	jobq_access_key;	/* number of the key in use, 0 = none; means
								 * nothing but to security/accesskey.c */
extern char *jobq_secret_file;	/* see security/secret.c */

extern void jobq_define_settings(void);		/* any time */
extern void jobq_define_preload_settings(void); /* while preloading only */

#endif							/* JOBQ_GUC_H */
