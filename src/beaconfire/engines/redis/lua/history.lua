-- Reads a page of history, the top position, and whether history continues from a position. Creates a missing stream.
--
-- KEYS  1 meta (hash)  2 stream
-- ARGV  1 epoch of a new stream  2 lineage of this server  3 ttl in ms  4 meta ttl in ms  5 limit, -1 for all
--       6 offset of `since`, or ""  7 epoch of `since`, or ""  8 "1" for a reverse page
-- Returns {epoch, top, continues (1 or 0), entries}. See publish.lua for the fields of meta.
local meta, stream, since = KEYS[1], KEYS[2], ARGV[6]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function text(number)
  return string.format('%.0f', number)
end

local m = redis.call('HMGET', meta, 'e', 's', 'x', 'mk', 'j', 'j0', 'u')
local epoch, top = m[1], tonumber(m[2] or 0)
if not epoch then
  epoch = ARGV[1]
  redis.call('DEL', stream)
  redis.call('HSET', meta, 'e', epoch, 's', '0', 'l', ARGV[2])
  m = {}
end
if now + tonumber(ARGV[4]) > tonumber(m[7] or 0) then
  local used = now + tonumber(ARGV[4]) + math.min(500, math.floor(tonumber(ARGV[4]) / 100))
  local kept = text(math.max(used, tonumber(m[4] or 0)))
  redis.call('HSET', meta, 'u', text(used), 'mk', kept)
  redis.call('PEXPIREAT', meta, kept)
end

-- Expiry times never fall, so what has expired is at the start. Each entry is removed once.
local oldest
while not oldest do
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 64)
  if #first == 0 then break end
  local expired
  for _, entry in ipairs(first) do
    local offset, expires = string.match(entry[1], '(%d+)-(%d+)')
    if tonumber(expires) > now then
      oldest = tonumber(offset)
      break
    end
    expired = offset
  end
  if expired and oldest then
    redis.call('XTRIM', stream, 'MINID', text(oldest))
  elseif expired then
    redis.call('XTRIM', stream, 'MINID', text(tonumber(expired) + 1))
  end
end

local continues = 1
if since ~= '' then
  if ARGV[7] ~= '' and ARGV[7] ~= epoch then
    continues = 0
  elseif ARGV[8] ~= '1' then
    local from = tonumber(since)
    local complete = oldest and oldest - 1 or top -- the last offset of which history retains everything after it
    if from > top or from < tonumber(m[6] or 0) then continues = 0 end
    for low, high in string.gmatch(m[5] or '', '(%d+):(%d+);') do
      -- Just before `high` is where a reader begins that does not know what is before it.
      if from > tonumber(low) and from < tonumber(high) - 1 then continues = 0 end
      if oldest == tonumber(high) then complete = tonumber(low) end
    end
    if from < complete then continues = 0 end
  end
end

local limit = tonumber(ARGV[5])
local entries = {}
if limit ~= 0 and not (ARGV[8] == '1' and since == '0') then
  local range
  if ARGV[8] == '1' then
    range = {'XREVRANGE', stream, since == '' and '+' or '(' .. since .. '-0', '-'}
  else
    range = {'XRANGE', stream, since == '' and '-' or '(' .. since .. '-18446744073709551615', '+'}
  end
  if limit > 0 then
    range[5] = 'COUNT'
    range[6] = ARGV[5]
  end
  entries = redis.call(unpack(range))
end
return {epoch, text(top), continues, entries}
