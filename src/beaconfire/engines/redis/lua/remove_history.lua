-- Removes the publications of a channel. The position stays until it expires.
--
-- KEYS  1 meta (hash)  2 stream. See publish.lua for the fields of meta.
redis.call('DEL', KEYS[2])
local used = redis.call('HGET', KEYS[1], 'u')
if used then
  redis.call('HDEL', KEYS[1], 'x', 'xk')
  redis.call('HSET', KEYS[1], 'mk', used)
  redis.call('PEXPIREAT', KEYS[1], used)
end
return redis.status_reply('OK')
