"""The demo of poses: made stick figures over textures, their files, and the run over them."""
