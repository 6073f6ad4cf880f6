-- KEYS[1] the breaker's hash: failures (in a row), opened_at, trial_until (ms, the server's time).
-- ARGV: what ("admit", "ok", "fault"), threshold, open_ms, trial_ms, ttl_ms.
-- "admit" answers 0 to go, -1 to go as the one trial, or the milliseconds to wait; the others answer the state.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local threshold, open_ms, trial_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local failures = tonumber(redis.call('HGET', KEYS[1], 'failures') or 0)

if ARGV[1] == 'ok' then
    redis.call('DEL', KEYS[1])
    return 0
end

if ARGV[1] == 'fault' then
    failures = redis.call('HINCRBY', KEYS[1], 'failures', 1)
    if failures >= threshold then
        redis.call('HSET', KEYS[1], 'opened_at', now, 'trial_until', 0)
    end
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
    return failures
end

if failures < threshold then
    return 0
end
local opened_at = tonumber(redis.call('HGET', KEYS[1], 'opened_at') or 0)
if now < opened_at + open_ms then
    return opened_at + open_ms - now
end
local trial_until = tonumber(redis.call('HGET', KEYS[1], 'trial_until') or 0)
if now < trial_until then
    return trial_until - now
end
redis.call('HSET', KEYS[1], 'trial_until', now + trial_ms)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return -1
