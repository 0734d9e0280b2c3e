-- The lineage of this server: a name that changes when another server process holds the data, or when it was emptied.
--
-- KEYS  1 era (hash)    ARGV  1 id of this run of the server  2 name of a new lineage
-- Returns the lineage.
local kept = redis.call('HMGET', KEYS[1], 'run', 'lineage')
if kept[1] == ARGV[1] and kept[2] then
  return kept[2]
end
redis.call('HSET', KEYS[1], 'run', ARGV[1], 'lineage', ARGV[2])
return ARGV[2]
