"""Compiled code: where it is kept."""

import jax

import minqa


def test_a_folder_that_jax_has_already_is_kept(tmp_path):
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        minqa.cache(tmp_path / "later")
        assert jax.config.values["jax_compilation_cache_dir"] == before and not (tmp_path / "later").exists()
        jax.config.update("jax_compilation_cache_dir", None)
        minqa.cache(tmp_path / "first")
        assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "first")
        assert (tmp_path / "first").is_dir()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
