// Checks of cuts: nothing is missed, nothing comes twice, and where that is impossible the server says so.

import assert from 'node:assert/strict';
import { connectionToken } from './backend.js';
import { Tokens, check } from './scene.js';

const range = (start, end) => Array.from({ length: end - start }, (_, index) => start + index);

/** The room's second `subscribed`, with the server's word on what was missed. */
async function back(room, recovered) {
  const context = await room.diary.wait('subscribed', { number: 2 });
  assert.ok(context.wasRecovering);
  assert.equal(context.recovered, recovered);
  return context;
}

check('recovery_after_cut', async scene => {
  const link = await scene.link();
  const [room, other] = [await scene.joined('ann', { port: link.port }), await scene.joined('bob')];
  await other.publish('before');
  await room.waitHeard('before');
  link.cut();
  await room.diary.wait('subscribing', { code: 1 });
  for (const number of range(0, 40)) {
    await other.publish(number);
  }
  await scene.backend.publish(scene.channel, 'backend');
  link.mend();
  await back(room, true);
  await room.waitHeard('before', ...range(0, 40), 'backend');
  await other.publish('after');
  await room.waitHeard('before', ...range(0, 40), 'backend', 'after');
  assert.deepEqual(room.diary.all('publication').map(publication => publication.offset), range(1, 44));
});

check('recovery_of_nothing', async scene => {
  const link = await scene.link();
  const room = await scene.joined('ann', { port: link.port });
  await scene.backend.publish(scene.channel, 1);
  await room.waitHeard(1);
  link.cut();
  await room.diary.wait('subscribing', { code: 1 });
  link.mend();
  await back(room, true);
  await scene.backend.publish(scene.channel, 2);
  await room.waitHeard(1, 2);
});

check('recovery_while_publishing', async scene => {
  const link = await scene.link();
  const room = await scene.joined('ann', { port: link.port });
  for (const number of range(0, 60)) {
    if (number % 20 === 10) {
      link.cut();
    } else if (number % 20 === 15) {
      link.mend();
    }
    await scene.backend.publish(scene.channel, number);
  }
  await room.waitHeard(...range(0, 60));
  assert.ok(room.diary.all('subscribed').slice(1).every(context => context.recovered));
});

check('recovery_in_small_history', async scene => {
  const link = await scene.link();
  const room = await scene.joined('ann', { port: link.port, channel: scene.small });
  link.cut();
  await room.diary.wait('subscribing', { code: 1 });
  await scene.backend.publish(scene.small, 'a', 'b');
  link.mend();
  await back(room, true);
  await room.waitHeard('a', 'b');
});

check('large_recovery', async scene => {
  const link = await scene.link();
  const room = await scene.joined('ann', { port: link.port });
  link.cut();
  await room.diary.wait('subscribing', { code: 1 });
  const texts = range(0, 30).map(number => `${number} ${'x'.repeat(40_000)}`);
  await scene.backend.publish(scene.channel, ...texts);
  link.mend();
  await back(room, true);
  await scene.backend.publish(scene.channel, 'after');
  await room.waitHeard(...texts, 'after');
  assert.deepEqual(room.diary.all('publication').map(publication => publication.offset), range(1, 32));
});

check('unrecoverable', async scene => {
  const link = await scene.link();
  const room = await scene.joined('ann', { port: link.port, channel: scene.small });
  await scene.backend.publish(scene.small, 'before');
  await room.waitHeard('before');
  link.cut();
  await room.diary.wait('subscribing', { code: 1 });
  await scene.backend.publish(scene.small, 'a', 'b', 'c');
  link.mend();
  const context = await back(room, false);
  assert.equal(context.streamPosition.offset, 4);
  await scene.backend.publish(scene.small, 'after');
  await room.waitHeard('before', 'after');
});

check('history_removed', async scene => {
  const link = await scene.link();
  const room = await scene.joined('ann', { port: link.port });
  link.cut();
  await room.diary.wait('subscribing', { code: 1 });
  await scene.backend.publish(scene.channel, 'lost');
  await scene.backend.call('history_remove', { channel: scene.channel });
  link.mend();
  await back(room, false);
});

check('state_invalidated', async scene => {
  const tokens = new Tokens(() => connectionToken(scene.user('ann')));
  const peer = await scene.connected('ann', { getToken: tokens.get });
  const room = await peer.subscribe(scene.channel, { getToken: async () => scene.token() });
  await scene.backend.publish(scene.channel, 'before');
  await room.waitHeard('before');
  await scene.backend.call('disconnect', {
    user: scene.user('ann'), disconnect: { code: 3014, reason: 'stale state' },
  });
  await back(room, false);
  assert.equal(tokens.asked, 2);
});

check('get_state', async scene => {
  const peer = await scene.connected();
  await scene.backend.publish(scene.channel, 'a', 'b');
  const { epoch } = await scene.backend.call('history', { channel: scene.channel });
  const positions = [{ offset: 1, epoch: 'foreign' }, { offset: 1, epoch }];
  let asked = 0;
  const getState = async () => positions[asked++];
  const room = await peer.subscribe(scene.channel, { token: scene.token(), getState });
  assert.equal(asked, 2);
  await room.waitHeard('b');
});

check('half_open_link', async scene => {
  const link = await scene.link(scene.hasty);
  const room = await scene.joined('ann', { port: link.port, maxServerPingDelay: 300 });
  await scene.hasty.publish(scene.channel, 'before');
  await room.waitHeard('before');
  link.mute({ upstream: true, downstream: true });
  await scene.hasty.publish(scene.channel, 'unheard');
  await room.peer.waitLost(2);
  await back(room, true);
  await room.waitHeard('before', 'unheard');
});

check('lost_pongs', async scene => {
  const link = await scene.link(scene.hasty);
  const room = await scene.joined('ann', { port: link.port });
  link.mute({ upstream: true });
  await room.peer.waitLost(3012);
  await back(room, true);
});

check('personal_channel_recovery', async scene => {
  const link = await scene.link();
  const peer = await scene.connected('42', { port: link.port });
  const channel = `#${scene.user('42')}`;
  await peer.diary.wait('subscribed', { channel });
  await scene.backend.publish(channel, 'before');
  await peer.diary.wait('publication', { channel });
  link.cut();
  await peer.diary.wait('subscribing', { channel });
  await scene.backend.publish(channel, ...range(0, 5));
  link.mend();
  const context = await peer.diary.wait('subscribed', { number: 2, channel });
  assert.ok(context.wasRecovering && context.recovered);
  await peer.diary.wait('publication', { number: 6 });
  const heard = peer.diary.all('publication').map(publication => peer.decode(publication.data));
  assert.deepEqual(heard, ['before', ...range(0, 5)]);
});
