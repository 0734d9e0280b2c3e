-- The live nodes: each renews its lease.
--
-- KEYS  1 leases: uid -> expiry (sorted set)    ARGV  1 uid that renews its lease, or ""  2 lease in ms
-- Returns the uids with a lease.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
return redis.call('ZRANGE', KEYS[1], 0, -1)
