"""Seconds by step, with compiling apart."""

import threading
import time

import jax
import jax.numpy as jnp

from minqa.clock import Clock, step


def compile_something(size):
    jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((size, size))).block_until_ready()


def test_the_clock_keeps_compiling_apart():
    with Clock() as clock:
        for _ in range(2):
            with step("work"):
                compile_something(7)
                time.sleep(0.02)
    assert {*clock.seconds} == {"work", "compile"}
    assert 0.04 <= clock.seconds["work"] < 0.2
    assert clock.seconds["compile"] > 0.001


def test_a_step_without_a_clock_is_not_timed():
    with step("work"):
        pass
    with Clock() as clock:
        pass
    with step("later"):
        pass
    assert clock.seconds == {"compile": 0}


def test_the_inner_clock_is_the_one_that_runs():
    with Clock() as outer:
        with step("before"):
            pass
        with Clock() as inner, step("inside"):
            pass
        with step("after"):
            pass
    assert {*outer.seconds} == {"before", "after", "compile"}
    assert {*inner.seconds} == {"inside", "compile"}


def test_a_step_that_fails_is_timed():
    try:
        with Clock() as clock, step("work"):
            time.sleep(0.01)
            raise ValueError
    except ValueError:
        assert clock.seconds["work"] >= 0.01


def test_a_clock_counts_what_its_own_thread_does():
    other = threading.Thread(target=lambda: compile_something(9))
    with Clock() as clock, step("wait"):
        other.start()
        other.join()
    assert clock.seconds["compile"] == 0 and clock.seconds["wait"] > 0.001
