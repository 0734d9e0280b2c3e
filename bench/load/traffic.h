/* The commands: opening connections, and two ways of publishing. Each writes one line of JSON. */
#pragma once
#include "commands.h"
#include "plan.h"

/* connect concurrency=N [marks=K]
 * Opens and sets up the connections that are not open, at most N at a time (0: all at once). A connection is open after
 * the reply to its last setup message and K marks. Latency: from connect() until the connection is open. */
void run_connect(const struct plan *plan, const struct words *command, double deadline_s);

/* flood window=W messages=M copies=K [acks=1]
 * Closed loop: every group with publishers publishes M messages, with at most W incomplete messages at a time; its
 * publishers take turns. A message is complete when its group has received K marks (counted in total: arrived / K)
 * and, with acks, its acknowledgement. Latency: from publishing to each mark. */
void run_flood(const struct plan *plan, const struct words *command, double deadline_s);

/* rate per_second=R seconds=S copies=K [timeout=5]
 * Open loop: R messages per second in total; groups take turns, and so do the publishers of a group. Each message
 * contains the time when it was due, so that a server that stalls cannot hide this by slowing down its publishers. Ends
 * when all copies were received, or `timeout` seconds after the last message was due. Latency: from due to each
 * mark. */
void run_rate(const struct plan *plan, const struct words *command);
