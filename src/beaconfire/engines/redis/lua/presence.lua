-- Presence of one channel. First removes the entries that have expired, so that every answer is exact.
--
-- KEYS  1 entries: client -> user and info  2 expiry of each client (sorted set)  3 users: user -> number of entries
-- ARGV  1 operation, then
--       "add": ttl in ms, then client, user, info for each member
--       "remove": clients    "refresh": ttl in ms, then clients; returns those without an entry
--       "members": returns client, info, client, info...    "stats": returns {clients, users}
-- An entry is the length of the user, ":", the user and the info.
local entries, expiry, users = KEYS[1], KEYS[2], KEYS[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local operation = ARGV[1]

local function parse(entry)
  local length, rest = string.match(entry, '^(%d+):(.*)$')
  return string.sub(rest, 1, tonumber(length)), string.sub(rest, tonumber(length) + 1)
end

local function remove(client)
  local entry = redis.call('HGET', entries, client)
  if not entry then return end
  local user = parse(entry)
  redis.call('HDEL', entries, client)
  redis.call('ZREM', expiry, client)
  if redis.call('HINCRBY', users, user, -1) <= 0 then
    redis.call('HDEL', users, user)
  end
end

while true do
  local expired = redis.call('ZRANGEBYSCORE', expiry, '-inf', now, 'LIMIT', 0, 1000)
  for _, client in ipairs(expired) do
    remove(client)
  end
  if #expired < 1000 then break end
end

-- The keys expire after their last entry.
local function keep(until_ms)
  local last = redis.call('ZREVRANGE', expiry, 0, 0, 'WITHSCORES')
  local kept = string.format('%.0f', math.max(until_ms, tonumber(last[2] or 0)) + 1000)
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIREAT', key, kept)
  end
end

if operation == 'add' then
  local until_ms = now + tonumber(ARGV[2])
  for at = 3, #ARGV, 3 do
    local client, user = ARGV[at], ARGV[at + 1]
    remove(client)
    redis.call('HSET', entries, client, #user .. ':' .. user .. ARGV[at + 2])
    redis.call('ZADD', expiry, until_ms, client)
    redis.call('HINCRBY', users, user, 1)
  end
  keep(until_ms)
elseif operation == 'remove' then
  for at = 2, #ARGV do
    remove(ARGV[at])
  end
elseif operation == 'refresh' then
  local until_ms = now + tonumber(ARGV[2])
  local missing = {}
  for at = 3, #ARGV do
    if redis.call('HEXISTS', entries, ARGV[at]) == 1 then
      redis.call('ZADD', expiry, 'XX', until_ms, ARGV[at])
    else
      missing[#missing + 1] = ARGV[at]
    end
  end
  keep(until_ms)
  return missing
elseif operation == 'members' then
  local found = redis.call('HGETALL', entries)
  for at = 2, #found, 2 do
    local _, info = parse(found[at])
    found[at] = info
  end
  return found
elseif operation == 'stats' then
  return {redis.call('ZCARD', expiry), redis.call('HLEN', users)}
end
return {}
