"""The main job once through on a series that an installed package ships."""
